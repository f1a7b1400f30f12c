"""Writing data sets in YOLO's layout: images/{train,val}, labels/{train,val}, dataset.yaml."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from model.common.errors import DataError
from model.common.files import write_json, write_text
from model.detection.dataset_folder import PARTS, link_or_copy
from model.recording.frame_files import is_whole

LARGEST_FILE = 64 * 1024 * 1024
ASPECT_TOLERANCE = 0.01
"""Largest relative difference between an image's aspect ratio and that of the size that its boxes are given in."""
MOST_PROBLEMS = 20
SOURCE = "source.json"
"""In a data set: the last two folders of its raw data, such as simulated/boxy."""


class UnusableImage(Exception):
    """An image that is left out; the text is the reason that it is counted under."""


@dataclass
class DatasetReport:
    """What a data set holds and what was left out."""

    images: dict[str, int] = field(default_factory=lambda: {"train": 0, "val": 0})
    classes: dict[str, dict[str, int]] = field(default_factory=lambda: {"train": {}, "val": {}})
    """Boxes by class."""
    groups: dict[str, list[str]] = field(default_factory=lambda: {"train": [], "val": []})
    dropped: dict[str, int] = field(default_factory=dict)
    """Images or boxes left out, by reason."""
    problems: list[str] = field(default_factory=list)
    """The first problems of the raw data, by file name."""

    @property
    def boxes(self) -> dict[str, int]:
        return {part: sum(counts.values()) for part, counts in self.classes.items()}

    def drop(self, reason: str, count: int = 1, problem: str = "") -> None:
        """Count what is left out for `reason`; `problem` names it."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + int(count)
        if problem and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


@dataclass
class Labels:
    """Images and the texts of their label files."""

    min_box_px: float
    """Boxes narrower or lower than this are dropped."""
    report: DatasetReport
    names: list[str] = field(default_factory=list)
    """Of the images in the data set."""
    files: list[str] = field(default_factory=list)
    """Of the images in the raw data."""
    groups: list[str] = field(default_factory=list)
    """The sequence or log of each image."""
    sizes: list[tuple[int, int]] = field(default_factory=list)
    """Width and height of the images that the boxes are given in, px."""
    texts: list[str] = field(default_factory=list)
    """`class cx cy w h` a line, as shares of the image."""

    def add_image(self, name: str, file: str, group: str, size: tuple[int, int]) -> int:
        """Returns the image's index."""
        self.names.append(name)
        self.files.append(file)
        self.groups.append(group)
        self.sizes.append(size)
        self.texts.append("")
        return len(self.names) - 1

    def add_box(self, image: int, number: int, x1: float, y1: float, x2: float, y2: float) -> None:
        """A box of class `number` in px, clipped to the image. Raises TypeError if the corners are not numbers."""
        width, height = self.sizes[image]
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, width), min(y2, height)
        if x1 >= x2 or y1 >= y2:
            self.report.drop("boxes without extent")
        elif left >= right or top >= bottom:
            self.report.drop("boxes outside the image")
        elif min(right - left, bottom - top) < self.min_box_px:
            self.report.drop("boxes too small")
        else:
            left, top, right, bottom = left / width, top / height, right / width, bottom / height
            centre = f"{(left + right) / 2:.6f} {(top + bottom) / 2:.6f}"
            self.texts[image] += f"{number} {centre} {right - left:.6f} {bottom - top:.6f}\n"


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
        image_folder, label_folder = self.folder / "images" / part, self.folder / "labels" / part
        for index, image in sources:
            name = labels.names[index]
            target = image_folder / name
            if isinstance(image, Path):
                link_or_copy(image, target)
            else:
                target.write_bytes(image)
            try:
                check_usable(target, labels.sizes[index])
            except UnusableImage as reason:
                target.unlink()
                self.report.drop(str(reason), 1, f"{name}: {reason}.")
                continue
            text = labels.texts[index]
            (label_folder / f"{name.rpartition('.')[0]}.txt").write_text(text, encoding="ascii")
            for line in text.splitlines():
                self.report.classes[part][self.names[int(line.split()[0])]] += 1
            used.append(index)
        self.report.images[part] += len(used)
        return used

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
        write_json(self.folder / SOURCE, {"source": "/".join(raw.resolve().parts[-2:])})
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
            width, height = opened.size
    except Image.DecompressionBombError as error:
        raise UnusableImage("images too large") from error
    except (OSError, ValueError, SyntaxError, ImportError) as error:
        # What PIL raises for other files. ultralytics, where imported, makes it look for a HEIF reader first.
        raise UnusableImage("images that are damaged") from error
    if not is_whole(image):
        raise UnusableImage("images that are damaged")
    label_width, label_height = label_size
    if abs(width * label_height / (height * label_width) - 1) > ASPECT_TOLERANCE:
        raise UnusableImage("images whose aspect ratio does not fit their boxes")
