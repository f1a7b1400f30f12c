"""Writing data sets in YOLO's layout: images/{train,val}, labels/{train,val}, dataset.yaml."""

import os
from collections.abc import Iterable, Iterator, Sequence
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
_SMALL, _MEDIUM = 32**2, 96**2
Mask = npt.NDArray[np.bool_]


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

    def keep(self, kept: Mask, faults: dict[str, Mask]) -> Mask:
        """The kept boxes without faulty ones, each counted under the first reason that applies to it."""
        for reason, faulty in faults.items():
            self.drop(reason, int((kept & faulty).sum()))
            kept = kept & ~faulty
        return kept


@dataclass(frozen=True)
class LabelledImages:
    """Names of images, and their boxes in the same order."""

    names: list[str]
    counts: npt.NDArray[np.int64]
    """(images,) boxes of each image"""
    classes: npt.NDArray[np.int64]
    """(boxes,) class ids"""
    boxes: npt.NDArray[np.float64]
    """(boxes,4) x1, y1, x2, y2 as shares of the image, within [0, 1]"""

    def select(self, chosen: Mask) -> "LabelledImages":
        """Only the chosen images (images,)."""
        boxes = np.repeat(chosen, self.counts)
        names = [name for name, choose in zip(self.names, chosen.tolist(), strict=True) if choose]
        return LabelledImages(names, self.counts[chosen], self.classes[boxes], self.boxes[boxes])


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

    def add(
        self,
        part: str,
        labelled: LabelledImages,
        label_sizes: npt.NDArray[np.int64],
        sources: Iterable[tuple[int, Path | bytes]],
    ) -> Mask:
        """Link or write the images that can be used, and write their labels.

        Args:
            label_sizes: (images,2) width and height in px of the images that the boxes are given in.
            sources: index of an image with its file or content; images that are missing here are left out.

        Returns:
            (images,) which of them are used.
        """
        used, pixels = np.zeros(len(labelled.names), bool), np.zeros((len(labelled.names), 2))
        for index, image in sources:
            name = labelled.names[index]
            target = self.folder / "images" / part / name
            self._place(image, target)
            try:
                pixels[index] = usable_size(target, label_sizes[index])
                used[index] = True
            except UnusableImage as reason:
                target.unlink()
                self.report.drop(str(reason), 1, f"{name}: {reason}.")
        self._write_labels(part, labelled.select(used), pixels[used])
        return used

    def _place(self, image: Path | bytes, target: Path) -> None:
        if isinstance(image, Path):
            link_or_copy(image, target)
        else:
            target.write_bytes(image)

    def _write_labels(self, part: str, labelled: LabelledImages, pixels: npt.NDArray[np.float64]) -> None:
        folder = f"{self.folder / 'labels' / part}{os.sep}"
        texts = label_texts(labelled.counts, labelled.classes, labelled.boxes)
        for name, text in zip(labelled.names, texts, strict=True):
            with open(f"{folder}{name.rpartition('.')[0]}.txt", "w", encoding="ascii") as stream:  # noqa: PTH123 (Paths are slow)
                stream.write(text)
        report = self.report
        report.images[part] += len(labelled.names)
        report.boxes[part] += len(labelled.classes)
        counts = np.bincount(labelled.classes, minlength=len(self.names)).tolist()
        for name, count in zip(self.names, counts, strict=True):
            report.classes[part][name] = report.classes[part].get(name, 0) + count
        sizes = labelled.boxes[:, 2:] - labelled.boxes[:, :2]
        self._sizes.append(sizes)
        self._areas.append((sizes * np.repeat(pixels, labelled.counts, axis=0)).prod(axis=1))
        self._density.append(labelled.counts)

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


def usable_size(image: Path, label_size: npt.ArrayLike) -> tuple[int, int]:
    """Width and height of an image in px. Its end is checked too, since downloads may be cut.

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
    label_width, label_height = np.asarray(label_size).tolist()
    if abs(width * label_height / (height * label_width) - 1) > ASPECT_TOLERANCE:
        raise UnusableImage("images whose aspect ratio does not fit their boxes")
    return width, height
