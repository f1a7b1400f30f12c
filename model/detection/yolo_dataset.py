"""Writing data sets in YOLO's layout: images/{train,val}, labels/{train,val}, dataset.yaml."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from model.common.errors import DataError
from model.common.files import write_json, write_text
from model.common.progress import Log
from model.detection.dataset_folder import PARTS, link_or_copy, replaced_folder
from model.recording.frame_files import is_whole

ASPECT_TOLERANCE = 0.01
"""Largest relative difference between an image's aspect ratio and that of the size that its boxes are given in."""
MOST_PROBLEMS = 20
PROGRESS_S = 10.0
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
        self.dropped[reason] = self.dropped.get(reason, 0) + count
        if problem and len(self.problems) < MOST_PROBLEMS:
            self.problems.append(problem)


@dataclass(slots=True)
class LabelledImage:
    """An image of the raw data and its boxes."""

    source: str
    """Its path."""
    name: str
    """Of its file in the data set."""
    group: str
    """Its sequence or log."""
    width: int
    height: int
    """Of the image that the boxes are given in, px; the file may have another scale."""
    text: str = ""
    """The label file: `class cx cy w h` a line, as shares of the image."""

    def add_box(self, number: int, x1: float, y1: float, x2: float, y2: float, min_px: float) -> str:
        """Add a box of class `number` in px, clipped to the image.

        Returns:
            Why the box is left out; empty if it is not.

        Raises:
            TypeError: the corners are not numbers.
        """
        left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, self.width), min(y2, self.height)
        if x1 >= x2 or y1 >= y2:
            return "boxes without extent"
        if left >= right or top >= bottom:
            return "boxes outside the image"
        if right - left < min_px or bottom - top < min_px:
            return "boxes too small"
        left, top, right, bottom = left / self.width, top / self.height, right / self.width, bottom / self.height
        centre = f"{(left + right) / 2:.6f} {(top + bottom) / 2:.6f}"
        self.text += f"{number} {centre} {right - left:.6f} {bottom - top:.6f}\n"
        return ""


def write_dataset(
    output: Path,
    raw: Path,
    classes: Sequence[str],
    images: Sequence[LabelledImage],
    part_of: Mapping[str, str],
    report: DatasetReport,
    log: Log,
) -> None:
    """Replace the data set `output` by one of the images that can be used, linked, and complete the report.

    Args:
        part_of: train or val by group.

    Raises:
        DataError: there is no image to train on or to validate on.
    """
    groups: dict[str, set[str]] = {part: set() for part in PARTS}
    placed, logged = set[str](), time.monotonic()
    with replaced_folder(output) as folder:
        for part in PARTS:
            for kind in ("images", "labels"):
                (folder / kind / part).mkdir(parents=True)
            report.classes[part] = dict.fromkeys(classes, 0)
        for number, image in enumerate(images):
            if time.monotonic() - logged > PROGRESS_S:
                logged = time.monotonic()
                log(f"{number:,} of {len(images):,} images")
            part = part_of[image.group]
            try:
                if image.name in placed:
                    raise UnusableImage("images that occur twice")
                check_usable(image.source, (image.width, image.height))
            except UnusableImage as reason:
                report.drop(str(reason), 1, f"{image.source}: {reason}.")
                continue
            link_or_copy(image.source, f"{folder}/images/{part}/{image.name}")
            Path(f"{folder}/labels/{part}/{image.name.rpartition('.')[0]}.txt").write_text(image.text, "ascii")
            for line in image.text.splitlines():
                report.classes[part][classes[int(line.partition(" ")[0])]] += 1
            placed.add(image.name)
            report.images[part] += 1
            groups[part].add(image.group)
        report.groups = {part: sorted(found) for part, found in groups.items()}
        if not all(report.images.values()):
            left_out = ", ".join(f"{count:,} {reason}" for reason, count in report.dropped.items()) or "nothing"
            examples = "".join(f" {problem}" for problem in report.problems[:3])
            raise DataError(
                f"{raw}: no usable image for training or for validation, of {len(images):,} labelled images (left out: "
                f"{left_out}). Put the images that the labels name there.{examples}"
            )
        listed = "".join(f"  {number}: {name}\n" for number, name in enumerate(classes))
        write_json(folder / SOURCE, {"source": "/".join(raw.resolve().parts[-2:])})
        # No absolute path: the data root can be moved.
        write_text(folder / "dataset.yaml", f"train: images/train\nval: images/val\nnames:\n{listed}")


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


def check_usable(image: str, label_size: tuple[int, int]) -> None:
    """Check an image's header, and its end, since downloads may be cut.

    Args:
        label_size: width and height in px that the boxes are given in; the image may have another scale.

    Raises:
        UnusableImage: the image is missing, damaged, too large or of another aspect ratio.
    """
    try:
        with Image.open(image, formats=("JPEG", "PNG")) as opened:
            width, height = opened.size
    except FileNotFoundError as error:
        raise UnusableImage("images that are missing") from error
    except Image.DecompressionBombError as error:
        raise UnusableImage("images too large") from error
    except (OSError, ValueError, SyntaxError, ImportError) as error:
        # What PIL raises for other files. ultralytics, where imported, makes it look for a HEIF reader first.
        raise UnusableImage("images that are damaged") from error
    if not is_whole(Path(image)):
        raise UnusableImage("images that are damaged")
    label_width, label_height = label_size
    if abs(width * label_height / (height * label_width) - 1) > ASPECT_TOLERANCE:
        raise UnusableImage("images whose aspect ratio does not fit their boxes")
