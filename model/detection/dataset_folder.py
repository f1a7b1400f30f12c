"""The folder of a YOLO data set: replaced whole, its files linked, its version and a mosaic of its images."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from model.common.config import fingerprint
from model.common.files import explained_errors, fsync, locked, temporary_folder
from model.common.images import contact_sheet, evenly

PARTS = ("train", "val")
MOSAIC_TILES = 9


@contextmanager
def replaced_folder(output: Path) -> Iterator[Path]:
    """Yield a new folder that replaces `output` at the end of the block; on an error nothing changes.

    One process at a time fills it.
    """
    old = output.with_name(f".{output.name}.old")
    with (
        locked(output.with_name(f".{output.name}.lock")),
        explained_errors(output),
        temporary_folder(output) as new,
    ):
        if old.exists() and not output.exists():  # killed between the two renames
            old.rename(output)
        shutil.rmtree(old, ignore_errors=True)
        yield new
        fsync(new)
        if output.exists():
            output.rename(old)
        new.rename(output)
        fsync(output.parent)
        shutil.rmtree(old, ignore_errors=True)


def link_or_copy(source: str, target: str) -> None:
    """A hard link where the file system can, else a symbolic one, else a copy."""
    try:
        os.link(source, target)
    except OSError:
        try:
            Path(target).symlink_to(Path(source).resolve())
        except OSError:
            shutil.copyfile(source, target)


def mosaic(dataset: Path, split: str = "train", limit: int = 75_000) -> bytes:
    """JPEG of at most `limit` bytes: evenly picked images with their boxes; blank where one cannot be decoded."""
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
