"""Data sets in YOLO's layout: images/{train,val}, labels/{train,val}, dataset.yaml."""

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from model.config import fingerprint
from model.errors import DataError
from model.files import fsync, write_text

MOSAIC_TILES = 9


@dataclass
class DatasetReport:
    """What a conversion made and what it left out."""

    images: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    boxes: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    groups: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "val": []})
    dropped: dict[str, int] = field(default_factory=dict)
    """Images or boxes left out, by reason."""
    median_box: list[float] = field(default_factory=list)
    """Width and height of the median box as shares of the image."""

    def drop(self, reason: str, count: int = 1) -> None:
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count


def split_groups(groups: Sequence[str], val_share: float) -> dict[str, str]:
    """Train or val for each group, whole: near-duplicate frames of a group never straddle the split.

    Groups are taken at even distances in their sorted order, so that val is spread over the recording period.

    Raises:
        DataError: fewer than two groups.
    """
    ordered = sorted(groups)
    if len(ordered) < 2:
        raise DataError(f"{len(ordered)} sequence(s): expected at least 2, one to train on and one to validate on.")
    count = min(max(1, round(len(ordered) * val_share)), len(ordered) - 1)
    chosen = {ordered[round(i)] for i in np.linspace(0, len(ordered) - 1, count + 2)[1:-1]}
    return {group: "val" if group in chosen else "train" for group in ordered}


def yolo_lines(classes: npt.NDArray[np.int64], boxes: npt.NDArray[np.float64], width: int, height: int) -> str:
    """Label file of boxes (n,4) x1, y1, x2, y2 in px: `class cx cy w h` a line, normalised, clipped to the image."""
    clipped = np.clip(boxes, 0, [width, height, width, height]) / [width, height, width, height]
    centre, size = (clipped[:, :2] + clipped[:, 2:]) / 2, clipped[:, 2:] - clipped[:, :2]
    rows = np.column_stack([centre, size]).tolist()
    return "".join(
        f"{c} {row[0]:.6f} {row[1]:.6f} {row[2]:.6f} {row[3]:.6f}\n"
        for c, row in zip(classes.tolist(), rows, strict=True)
    )


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder beside `output` that takes its place when all is written; on an error nothing changes."""
    output.parent.mkdir(parents=True, exist_ok=True)
    new = output.with_name(f".{output.name}.{uuid.uuid4().hex[:12]}")
    old = new.with_name(new.name + ".old")
    try:
        new.mkdir()
        yield new
        fsync(new)
        if output.exists():
            output.rename(old)
        new.rename(output)
        fsync(output.parent)
    except BaseException:
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(new, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def write_yaml(folder: Path, names: Sequence[str]) -> None:
    """dataset.yaml. It names no absolute path, so that the data root can be moved."""
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    write_text(folder / "dataset.yaml", f"train: images/train\nval: images/val\nnames:\n{listed}")


def mosaic(dataset: Path, split: str = "train", limit: int = 75_000) -> bytes:
    """JPEG of at most `limit` bytes: some images with their boxes drawn, evenly picked."""
    images = sorted((dataset / "images" / split).iterdir())
    picked = [images[i] for i in np.unique(np.linspace(0, len(images) - 1, MOSAIC_TILES).astype(int))] if images else []
    tiles = [_tile(path, dataset / "labels" / split / f"{path.stem}.txt") for path in picked]
    blank = np.full((240, 320, 3), 255, np.uint8)
    tiles += [blank] * (-len(tiles) % 3)
    if not tiles:
        tiles = [blank] * 3
    sheet = np.vstack([np.hstack(tiles[row : row + 3]) for row in range(0, len(tiles), 3)])
    return small_jpeg(sheet, limit)


def dataset_version(dataset: Path) -> str:
    """Twelve hex digits that identify a data set: names and contents of its label files."""
    files = sorted((dataset / "labels").rglob("*.txt"))
    return fingerprint([(str(path.relative_to(dataset)), path.read_text()) for path in files])


def read_image(path: Path) -> npt.NDArray[np.uint8]:
    """An image file as (height, width, 3) BGR."""
    return np.asarray(cv2.imread(str(path)), np.uint8)


def small_jpeg(image: npt.NDArray[np.uint8], limit: int) -> bytes:
    """An image as JPEG of at most `limit` bytes, as good as that allows."""
    for quality in (85, 70, 55, 40, 25, 10):
        _, content = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
        if len(content) <= limit:
            return content.tobytes()
    half = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    return small_jpeg(np.asarray(half, np.uint8), limit)


def _tile(image: Path, labels: Path) -> npt.NDArray[np.uint8]:
    tile = cv2.resize(cv2.imread(str(image)), (320, 240), interpolation=cv2.INTER_AREA)
    for line in labels.read_text().splitlines():
        _, cx, cy, w, h = map(float, line.split())
        corners = [(cx - w / 2) * 320, (cy - h / 2) * 240, (cx + w / 2) * 320, (cy + h / 2) * 240]
        x1, y1, x2, y2 = (round(value) for value in corners)
        cv2.rectangle(tile, (x1, y1), (x2, y2), (0, 200, 255), 1)
    return np.asarray(tile, np.uint8)
