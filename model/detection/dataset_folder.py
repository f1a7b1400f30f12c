"""The folder of a YOLO data set: replaced whole, its files linked, its version and a mosaic of its images."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from model.common.config import fingerprint
from model.common.files import explained_errors, fsync, locked
from model.common.images import contact_sheet, evenly

PARTS = ("train", "val")
MOSAIC_TILES = 9


@contextmanager
def replaced_folder(output: Path) -> Iterator[tuple[Path, list[Path]]]:
    """Yield a new folder that replaces `output` at the end of the block; on an error nothing changes.

    One process at a time fills it. Yielded with it are the earlier folders whose files can be linked: `output`, and
    the folder of a killed run, which is removed at the end.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    hidden = f".{output.name}"
    new, old, left = (output.with_name(f"{hidden}.{kind}") for kind in ("new", "old", "left"))
    with locked(output.with_name(f"{hidden}.lock")), explained_errors(output):
        if old.exists() and not output.exists():  # killed between the two renames
            old.rename(output)
        shutil.rmtree(old, ignore_errors=True)
        if new.exists():
            shutil.rmtree(left, ignore_errors=True)
            new.rename(left)
        new.mkdir()
        try:
            yield new, [folder for folder in (output, left) if folder.exists()]
            fsync(new)
            if output.exists():
                output.rename(old)
            new.rename(output)
            fsync(output.parent)
        except Exception:  # after an interruption, which is none, the next run links these files
            if old.exists() and not output.exists():
                old.rename(output)
            shutil.rmtree(new, ignore_errors=True)
            raise
        for folder in (old, left):
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
