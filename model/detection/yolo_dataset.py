"""Data sets in YOLO's layout: images/{train,val}, labels/{train,val}, dataset.yaml."""

import io
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
from PIL import Image

from model.common.config import fingerprint
from model.common.errors import DataError
from model.common.files import explained_write_errors, fsync, locked, write_text
from model.common.images import contact_sheet, evenly

MOSAIC_TILES = 9
PARTS = ("train", "val")
LARGEST_FILE = 64 * 1024 * 1024
LARGEST_PIXELS = 64_000_000
SAME_ASPECT = 0.01
"""How far the ratio of an image's sides may be from that of the size which its boxes are given in."""
MOST_PROBLEMS = 20
_SMALL, _MEDIUM = 32**2, 96**2


class UnusableImage(Exception):
    """An image that is left out; the text is the reason that it is counted under."""


@dataclass
class DatasetReport:
    """What a conversion made and what it left out."""

    images: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    boxes: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    classes: dict[str, dict[str, int]] = field(default_factory=lambda: {"train": {}, "val": {}})
    """Boxes by class."""
    groups: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "val": []})
    dropped: dict[str, int] = field(default_factory=dict)
    """Images or boxes left out, by reason."""
    problems: list[str] = field(default_factory=list)
    """The first of what is wrong with the raw data, by file name."""
    boxes_per_image: dict[str, int] = field(default_factory=dict)
    """Images by their number of boxes."""
    median_box: list[float] = field(default_factory=list)
    """Width and height of the median box as shares of the image."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Boxes by size in px of the image as COCO counts them: small below 32x32, medium below 96x96, large."""

    def drop(self, reason: str, count: int = 1, problem: str = "") -> None:
        """Count what is left out for `reason`; `problem` names it."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(count)
        if problem and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


class DatasetWriter:
    """Fills the folder of a new data set, and its report."""

    def __init__(self, folder: Path, names: Sequence[str], report: DatasetReport) -> None:
        self.folder, self.names, self.report = folder, names, report
        self._sizes: list[npt.NDArray[np.float64]] = []
        self._areas: list[npt.NDArray[np.float64]] = []
        self._density: list[npt.NDArray[np.int64]] = []
        for part in PARTS:
            (folder / "images" / part).mkdir(parents=True)
            (folder / "labels" / part).mkdir(parents=True)

    def place_image(self, part: str, name: str, image: Path | bytes) -> None:
        """Link a file to, or write bytes as, `images/<part>/<name>`."""
        target = self.folder / "images" / part / name
        if isinstance(image, Path):
            link_or_copy(image, target)
        else:
            target.write_bytes(image)

    def write_labels(
        self,
        part: str,
        stems: Sequence[str],
        counts: npt.NDArray[np.int64],
        classes: npt.NDArray[np.int64],
        boxes: npt.NDArray[np.float64],
        pixels: npt.NDArray[np.float64],
    ) -> None:
        """Write one label file an image.

        Args:
            stems: (images,) names without suffix.
            counts: (images,) boxes of each.
            classes: (boxes,) class ids, in the order of the images.
            boxes: (boxes,4) x1, y1, x2, y2 as shares of the image, within [0, 1].
            pixels: (images,2) width and height in px.
        """
        folder = f"{self.folder / 'labels' / part}{os.sep}"
        for stem, text in zip(stems, label_texts(counts, classes, boxes), strict=True):
            with open(f"{folder}{stem}.txt", "w", encoding="ascii") as stream:  # noqa: PTH123 (a Path a file is slow)
                stream.write(text)
        report = self.report
        report.images[part] += len(stems)
        report.boxes[part] += len(classes)
        for number, count in enumerate(np.bincount(classes, minlength=len(self.names)).tolist()):
            name = self.names[number]
            report.classes[part][name] = report.classes[part].get(name, 0) + count
        sizes = boxes[:, 2:] - boxes[:, :2]
        self._sizes.append(sizes)
        self._areas.append((sizes * np.repeat(pixels, counts, axis=0)).prod(axis=1))
        self._density.append(counts)

    def finish(self, raw: Path, expected: str) -> None:
        """Write dataset.yaml and finish the report.

        Raises:
            DataError: there is no image to train on or to validate on.
        """
        report = self.report
        if not report.images["train"] or not report.images["val"]:
            left_out = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items()) or "nothing"
            examples = "".join(f" {problem}" for problem in report.problems[:3])
            raise DataError(
                f"{raw}: no usable image for training or for validation (left out: {left_out}). "
                f"Expected {expected}.{examples}"
            )
        write_text(self.folder / "dataset.yaml", _yaml(self.names))
        density = np.bincount(np.concatenate(self._density))
        report.boxes_per_image = {str(boxes): images for boxes, images in enumerate(density.tolist()) if images}
        sizes, areas = np.concatenate(self._sizes), np.concatenate(self._areas)
        report.median_box = np.median(sizes, axis=0).round(4).tolist() if len(sizes) else []
        small, medium = int((areas < _SMALL).sum()), int((areas < _MEDIUM).sum())
        report.sizes = {"small": small, "medium": medium - small, "large": len(areas) - medium}


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


def label_texts(
    counts: npt.NDArray[np.int64], classes: npt.NDArray[np.int64], boxes: npt.NDArray[np.float64]
) -> Iterator[str]:
    """Label files of images with `counts` boxes each: `class cx cy w h` a line, as shares of the image."""
    centre, size = (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]
    rows = np.column_stack([centre, size]).tolist()
    lines = [
        f"{number} {row[0]:.6f} {row[1]:.6f} {row[2]:.6f} {row[3]:.6f}\n"
        for number, row in zip(classes.tolist(), rows, strict=True)
    ]
    start = 0
    for count in counts.tolist():
        yield "".join(lines[start : start + count])
        start += count


def usable_size(image: Path | bytes) -> tuple[int, int]:
    """Width and height of an image in px, read from its header, after a look at its end: it may have been cut.

    Raises:
        UnusableImage: it is damaged or too large.
    """
    try:
        length = image.stat().st_size if isinstance(image, Path) else len(image)
        if length > LARGEST_FILE:
            raise UnusableImage("images too large")
        with open(image, "rb") if isinstance(image, Path) else io.BytesIO(image) as stream:  # noqa: PTH123
            with Image.open(stream, formats=("JPEG", "PNG")) as opened:
                (width, height), kind = opened.size, opened.format
            ending = b"\xff\xd9" if kind == "JPEG" else b"IEND\xae\x42\x60\x82"
            stream.seek(-len(ending), os.SEEK_END)
            if stream.read() != ending:
                raise UnusableImage("images that are damaged")
    except Image.DecompressionBombError as error:
        raise UnusableImage("images too large") from error
    except (OSError, ValueError, SyntaxError, ImportError) as error:
        # PIL's kinds for what is no image. Where ultralytics is imported, it has PIL look for a reader of HEIF first.
        raise UnusableImage("images that are damaged") from error
    if width * height > LARGEST_PIXELS:
        raise UnusableImage("images too large")
    return width, height


def same_aspect(size: tuple[int, int], boxes_in: tuple[int, int]) -> bool:
    """Whether boxes given in an image of size `boxes_in` fit one of `size`, whatever its scale."""
    return abs(size[0] * boxes_in[1] / (size[1] * boxes_in[0]) - 1) <= SAME_ASPECT


@contextmanager
def replaced_folder(output: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield a new folder that takes the place of `output` when all is written; on an error nothing changes.

    One process at a time fills it. With it come the earlier folders whose files can be taken over: `output`, and what
    killed runs left, which is removed in the end.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    hidden = f".{output.name}"
    new, old = output.with_name(f"{hidden}.new"), output.with_name(f"{hidden}.old")
    with locked(output.with_name(f"{hidden}.lock")), explained_write_errors(output):
        if old.exists() and not output.exists():  # killed between the two renames
            old.rename(output)
        shutil.rmtree(old, ignore_errors=True)
        if new.exists():
            new.rename(output.with_name(f"{hidden}.left.{uuid.uuid4().hex[:12]}"))
        left = sorted(output.parent.glob(f"{hidden}.left.*"))
        new.mkdir()
        try:
            yield new, [*([output] if output.exists() else []), *left]
            fsync(new)
            if output.exists():
                output.rename(old)
            new.rename(output)
            fsync(output.parent)
        except Exception:  # what interrupts a run is none: the next run then takes over what is there
            if old.exists() and not output.exists():
                old.rename(output)
            shutil.rmtree(new, ignore_errors=True)
            raise
        for folder in (old, *left):
            shutil.rmtree(folder, ignore_errors=True)


def known_images(folders: Sequence[Path]) -> dict[str, Path]:
    """The images of earlier data sets by file name."""
    parts = [folder / "images" / part for folder in reversed(folders) for part in PARTS]
    return {entry.name: Path(entry.path) for part in parts if part.is_dir() for entry in os.scandir(part)}


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system can, else a symbolic one, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        try:
            target.symlink_to(source.resolve())
        except OSError:
            shutil.copyfile(source, target)


def _yaml(names: Sequence[str]) -> str:
    """It names no absolute path, so that the data root can be moved."""
    listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(names))
    return f"train: images/train\nval: images/val\nnames:\n{listed}"


def mosaic(dataset: Path, split: str = "train", limit: int = 75_000) -> bytes:
    """JPEG of at most `limit` bytes: some images with their boxes drawn, evenly picked; an image that cannot be decoded
    shows blank."""
    images = sorted((dataset / "images" / split).iterdir())
    picked = [images[index] for index in evenly(len(images), MOSAIC_TILES)]
    tiles = [_tile(path, dataset / "labels" / split / f"{path.stem}.txt") for path in picked]
    return contact_sheet(tiles, 3, limit)


def dataset_version(dataset: Path) -> str:
    """Twelve hex digits that identify a data set: its classes, and names and contents of its label files."""
    files = sorted((dataset / "labels").rglob("*.txt"))
    contents = [(str(path.relative_to(dataset)), path.read_text()) for path in files]
    return fingerprint((dataset / "dataset.yaml").read_text(), contents)


def _tile(image: Path, labels: Path) -> npt.NDArray[np.uint8]:
    decoded = cv2.imread(str(image))
    if decoded is None:
        return np.full((240, 320, 3), 255, np.uint8)
    tile = cv2.resize(decoded, (320, 240), interpolation=cv2.INTER_AREA)
    for line in labels.read_text().splitlines():
        _, cx, cy, w, h = map(float, line.split())
        corners = [(cx - w / 2) * 320, (cy - h / 2) * 240, (cx + w / 2) * 320, (cy + h / 2) * 240]
        x1, y1, x2, y2 = (round(value) for value in corners)
        cv2.rectangle(tile, (x1, y1), (x2, y2), (0, 200, 255), 1)
    return np.asarray(tile, np.uint8)
