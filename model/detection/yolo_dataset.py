"""Writing data sets in YOLO's layout: images/{train,val}, labels/{train,val}, dataset.yaml."""

import os
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from model.common.errors import DataError
from model.common.files import write_text
from model.detection.dataset_folder import PARTS, link_or_copy

LARGEST_FILE = 64 * 1024 * 1024
LARGEST_PIXELS = 64_000_000
ASPECT_TOLERANCE = 0.01
"""Largest relative difference between an image's aspect ratio and that of the size that its boxes are given in."""
MOST_PROBLEMS = 20
_ENDINGS = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xae\x42\x60\x82"}


class UnusableImage(Exception):
    """An image that is left out; the text is the reason that it is counted under."""


@dataclass
class DatasetReport:
    """What a data set holds and what was left out."""

    images: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    boxes: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    classes: dict[str, dict[str, int]] = field(default_factory=lambda: {"train": {}, "val": {}})
    """Boxes by class."""
    groups: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "val": []})
    dropped: dict[str, int] = field(default_factory=dict)
    """Images or boxes left out, by reason."""
    problems: list[str] = field(default_factory=list)
    """The first problems of the raw data, by file name."""

    def drop(self, reason: str, count: int = 1, problem: str = "") -> None:
        """Count what is left out for `reason`; `problem` names it."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(count)
        if problem and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


@dataclass
class RawLabels:
    """Images and boxes as they are read; numbers in arrays, since label files are larger than many memories."""

    names: list[str] = field(default_factory=list)
    """Of the images in the data set."""
    files: list[str] = field(default_factory=list)
    """Of the images in the raw data."""
    groups: list[str] = field(default_factory=list)
    """The sequence or log of each image."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of the images that the boxes are given in, px."""
    image_of: array = field(default_factory=lambda: array("q"))
    """(boxes,) index of its image"""
    classes: array = field(default_factory=lambda: array("q"))
    """(boxes,)"""
    corners: array = field(default_factory=lambda: array("d"))
    """(boxes * 4,) x1, y1, x2, y2, px"""

    def add_image(self, name: str, file: str, group: str, size: tuple[int, int]) -> int:
        """Returns the image's index."""
        self.names.append(name)
        self.files.append(file)
        self.groups.append(group)
        self.sizes.append(size)
        return len(self.names) - 1

    def add_box(self, image: int, number: int, corners: Iterable[float]) -> None:
        """A box of class `number`. Raises TypeError or OverflowError if the corners are not numbers."""
        self.corners.extend(array("d", corners))
        self.image_of.append(image)
        self.classes.append(number)

    def labels(self, min_box_px: float, report: DatasetReport) -> "Labels":
        """The boxes within their images, of at least this width and height; the others are reported."""
        image_of = np.array(self.image_of, np.int64)
        size = np.array(self.sizes, float).reshape(-1, 1, 2)[image_of]
        corners = np.array(self.corners, float).reshape(-1, 2, 2)
        clipped = np.clip(corners, 0, size)
        extent = clipped[:, 1] - clipped[:, 0]
        kept = np.ones(len(corners), bool)
        faults = {
            "boxes without extent": (corners[:, 0] >= corners[:, 1]).any(axis=1),
            "boxes outside the image": (extent <= 0).any(axis=1),
            "boxes too small": (extent < min_box_px).any(axis=1),
        }
        for reason, faulty in faults.items():
            report.drop(reason, int((kept & faulty).sum()))
            kept &= ~faulty
        order = np.argsort(image_of, kind="stable")
        kept = order[kept[order]]
        shares = clipped[kept] / size[kept]
        boxes = np.hstack([shares.mean(axis=1), shares[:, 1] - shares[:, 0]])
        offsets = np.searchsorted(image_of[kept], np.arange(len(self.names) + 1)).tolist()
        return Labels(self.names, self.sizes, offsets, np.array(self.classes, np.int64)[kept], boxes)


@dataclass(frozen=True)
class Labels:
    """Images, and their boxes in the same order; those of image i are `offsets[i]:offsets[i + 1]`."""

    names: list[str]
    sizes: list[tuple[int, int]]
    offsets: list[int]
    classes: npt.NDArray[np.int64]
    """(boxes,) class ids"""
    boxes: npt.NDArray[np.float64]
    """(boxes,4) centre, width and height as shares of the image"""

    def text(self, image: int) -> str:
        """An image's label file: `class cx cy w h` a line."""
        part = slice(self.offsets[image], self.offsets[image + 1])
        rows = zip(self.classes[part].tolist(), self.boxes[part].tolist(), strict=True)
        return "".join(f"{number} {cx:.6f} {cy:.6f} {w:.6f} {h:.6f}\n" for number, (cx, cy, w, h) in rows)


class DatasetWriter:
    """Fills the folder of a new data set, and its report."""

    def __init__(self, folder: Path, names: Sequence[str], report: DatasetReport) -> None:
        self.folder, self.names, self.report = folder, names, report
        for part in PARTS:
            (folder / "images" / part).mkdir(parents=True)
            (folder / "labels" / part).mkdir(parents=True)
            report.classes[part] = dict.fromkeys(names, 0)

    def add(self, part: str, labels: Labels, sources: Iterable[tuple[int, Path | bytes]]) -> list[int]:
        """Link or write the images that can be used, and write their labels; return their indices.

        Args:
            sources: index of an image with its file or content; images that are missing here are left out.
        """
        used = []
        for index, image in sources:
            name = labels.names[index]
            target = self.folder / "images" / part / name
            self._place(image, target)
            try:
                check_usable(target, labels.sizes[index])
            except UnusableImage as reason:
                target.unlink()
                self.report.drop(str(reason), 1, f"{name}: {reason}.")
                continue
            (self.folder / "labels" / part / name).with_suffix(".txt").write_text(labels.text(index), encoding="ascii")
            used.append(index)
        self.report.images[part] += len(used)
        for index in used:
            numbers = labels.classes[labels.offsets[index] : labels.offsets[index + 1]].tolist()
            self.report.boxes[part] += len(numbers)
            for number in numbers:
                self.report.classes[part][self.names[number]] += 1
        return used

    def _place(self, image: Path | bytes, target: Path) -> None:
        if isinstance(image, Path):
            link_or_copy(image, target)
        else:
            target.write_bytes(image)

    def finish(self, raw: Path, expected: str) -> None:
        """Write dataset.yaml and complete the report.

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
        listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(self.names))
        # No absolute path: the data root can be moved.
        write_text(self.folder / "dataset.yaml", f"train: images/train\nval: images/val\nnames:\n{listed}")


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


def check_usable(image: Path, label_size: tuple[int, int]) -> None:
    """Check an image's header, and its end, since downloads may be cut.

    Args:
        label_size: width and height in px that the boxes are given in; the image may have another scale.

    Raises:
        UnusableImage: the image is damaged, too large or of another aspect ratio.
    """
    try:
        if image.stat().st_size > LARGEST_FILE:
            raise UnusableImage("images too large")
        with Image.open(image, formats=("JPEG", "PNG")) as opened:
            (width, height), ending = opened.size, _ENDINGS[str(opened.format)]
        with image.open("rb") as stream:
            stream.seek(-len(ending), os.SEEK_END)
            if stream.read() != ending:
                raise UnusableImage("images that are damaged")
    except Image.DecompressionBombError as error:
        raise UnusableImage("images too large") from error
    except (OSError, ValueError, SyntaxError, ImportError) as error:
        # What PIL raises for other files. ultralytics, where imported, makes it look for a HEIF reader first.
        raise UnusableImage("images that are damaged") from error
    if width * height > LARGEST_PIXELS:
        raise UnusableImage("images too large")
    label_width, label_height = label_size
    if abs(width * label_height / (height * label_width) - 1) > ASPECT_TOLERANCE:
        raise UnusableImage("images whose aspect ratio does not fit their boxes")
