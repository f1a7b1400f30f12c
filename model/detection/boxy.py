"""Boxy (Behrendt 2019) as published -> a YOLO data set: zips of half-size PNG frames, labels in full-size pixels."""

import re
from array import array
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from model.common.config import Config
from model.common.errors import DataError
from model.common.progress import Tell
from model.detection.boxy_images import ZIP_FOLDER, archive_stems, archives, folders, images
from model.detection.downloads import NotOnServer, Remote
from model.detection.json_rows import json_items
from model.detection.yolo_dataset import (
    DatasetReport,
    DatasetWriter,
    UnusableImage,
    known_images,
    replaced_folder,
    same_aspect,
    split_groups,
    usable_size,
)

FULL_WIDTH, FULL_HEIGHT = 2464, 2056
BONNET_X, BONNET_Y = (0.35, 0.65), 0.90
"""A box whose centre lies here is the own car's bonnet."""
SAME_EDGE_PX = 10
"""Rear and whole box closer than this on both sides: the vehicle is seen from straight behind."""
CLASSES = {"vehicle": ("vehicle",), "sides": ("vehicle.left", "vehicle.front", "vehicle.right")}
FLAWLESS = "no-issues"
"""What the published labels say of a frame without flaws."""
LABELS = "*labels*.json"
PUBLISHED_LABELS = ("boxy_labels_train.json", "boxy_labels_valid.json")
_FRAME = re.compile(r"^\./(?P<sequence>[\w.-]+)/(?P<frame>[\w.-]+)\.png$")


class BoxyConfig(Config):
    """What of Boxy becomes a data set."""

    classes: Literal["vehicle", "sides"] = Field(
        "vehicle", description="vehicle: one class; sides: vehicle.left, vehicle.front, vehicle.right"
    )
    min_box_px: float = Field(
        0.0, ge=0, description="Boxes narrower or lower than this (px of the full-size image) are dropped"
    )
    val_share: float = Field(0.2, gt=0, lt=1, description="Share of sequences for validation, whole")
    sequences: list[str] = Field(
        [], description="Only these sequences (2016-10-04-13-52-40, or as in the labels); empty: all"
    )


@dataclass
class _Sequence:
    """Labels of a sequence's frames, one after the other."""

    frames: list[str] = field(default_factory=list)
    counts: array = field(default_factory=lambda: array("q"))
    corners: array = field(default_factory=lambda: array("d"))
    """Eight numbers a vehicle: x1, y1, x2, y2 of all of it, then of its rear; each the other's where one is missing."""


@dataclass(frozen=True)
class _Boxes:
    """Boxes of the frames of a sequence that can be used: `counts` (frames,), `classes` (boxes,), `boxes` (boxes,4)."""

    frames: list[str]
    counts: npt.NDArray[np.int64]
    classes: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    """x1, y1, x2, y2 as shares of the image."""

    def of(self, kept: npt.NDArray[np.bool_]) -> "_Boxes":
        """Only the frames that are kept."""
        boxes = np.repeat(kept, self.counts)
        frames = [frame for frame, keep in zip(self.frames, kept.tolist(), strict=True) if keep]
        return _Boxes(frames, self.counts[kept], self.classes[boxes], self.boxes[boxes])


def convert_boxy(raw: Path, output: Path, config: BoxyConfig, tell: Tell = lambda line: None) -> DatasetReport:
    """Convert the raw folder (`*.zip` or extracted sequence folders, and label JSON files) to a YOLO data set.

    Extracted images are linked; an image of an earlier conversion is linked, not extracted again. The result replaces
    `output` when it is whole. Frames and zips that cannot be used are left out and counted.

    Raises:
        DataError: no labels, a label file that is broken, no usable image; names it.
    """
    report = DatasetReport()
    labels = _with_images(raw, _read_labels(raw, config, report), report)
    part_of = split_groups(list(labels), config.val_share)
    with replaced_folder(output) as (new, earlier):
        writer = DatasetWriter(new, CLASSES[config.classes], report)
        known = known_images(earlier)
        for number, sequence in enumerate(sorted(labels), 1):
            part, boxes = part_of[sequence], _boxes(labels.pop(sequence), config, report)
            report.groups[part].append(sequence)
            kept, sizes = np.zeros(len(boxes.frames), bool), np.zeros((len(boxes.frames), 2))
            for index, image in images(raw, known, sequence, boxes.frames, report):
                try:
                    size = usable_size(image)
                    if not same_aspect(size, (FULL_WIDTH, FULL_HEIGHT)):
                        raise UnusableImage(f"images of another aspect than {FULL_WIDTH}x{FULL_HEIGHT}")
                except UnusableImage as reason:
                    report.drop(str(reason), 1, f"{sequence}/{boxes.frames[index]}.png: {reason}.")
                    continue
                writer.place_image(part, f"{sequence}__{boxes.frames[index]}.png", image)
                kept[index], sizes[index] = True, size
            used = boxes.of(kept)
            stems = [f"{sequence}__{frame}" for frame in used.frames]
            writer.write_labels(part, stems, used.counts, used.classes, used.boxes, sizes[kept])
            tell(f"Sequence {number} of {len(part_of)} ({part}): {sequence}, {len(stems):,} images")
        writer.finish(raw, "the zips of the sequences that the label files name, or their folders")
    return report


def download_boxy(remote: Remote, raw: Path, config: BoxyConfig, tell: Tell = lambda line: None) -> None:
    """Fetch labels and the sequences' zips that `raw` lacks. A zip that the server lacks is named and left out.

    Raises:
        DataError: something cannot be fetched or is damaged, or there are no labels; names the file, not the address.
    """

    def fetch(names: list[str], needed: bool = False) -> None:
        try:
            remote.fetch(names, raw / PurePosixPath(names[-1]).name, tell)
        except NotOnServer:
            if needed:
                raise
            tell(f"{names[-1]} is not on the server: it is left out")

    for name in PUBLISHED_LABELS:
        fetch([name], needed=name == PUBLISHED_LABELS[0])
    present = {path.stem for folder in (raw, raw / ZIP_FOLDER) for path in folder.glob("*.zip")}
    for sequence in sorted(_read_labels(raw, config, DatasetReport())):
        if (raw / sequence).is_dir() or present & set(archive_stems(sequence)):
            continue
        name = f"{archive_stems(sequence)[-1]}.zip"
        fetch([f"{ZIP_FOLDER}/{name}", name])


def _read_labels(raw: Path, config: BoxyConfig, report: DatasetReport) -> dict[str, _Sequence]:
    """Labels of the chosen sequences. Files are read frame by frame: all of Boxy's would fill the memory."""
    files = sorted(path for path in raw.glob(LABELS) if not path.name.startswith(".")) if raw.is_dir() else []
    if not files:
        raise DataError(
            f"{raw} holds no Boxy labels: expected {PUBLISHED_LABELS[0]} beside the zips. Download them, or make a "
            "simulated set with `drive-assets simulate`."
        )
    wanted = {stem for sequence in config.sequences for stem in archive_stems(sequence)}
    found: dict[str, _Sequence] = {}
    seen: set[str] = set()
    for path in files:
        for name, label in json_items(path):
            match = _FRAME.match(name)
            if match is None or ".." in name:
                raise DataError(f"{path}, label of {name!r}: expected a frame as ./<sequence>/<frame>.png.")
            if wanted and match["sequence"] not in wanted:
                continue
            sequence = found.setdefault(match["sequence"], _Sequence())
            if name in seen:
                report.drop("labels that come twice")
                continue
            seen.add(name)
            try:
                flawed = any(flaw != FLAWLESS for flaw in label.get("flaws") or ())
                corners = _corners(label["vehicles"])
            except (KeyError, TypeError, AttributeError, OverflowError):
                report.drop("labels that cannot be read", 1, f"{path}, {name}: the label cannot be read.")
                continue
            if flawed:
                report.drop("images with flaws")
                continue
            sequence.frames.append(match["frame"])
            sequence.counts.append(len(corners) // 8)
            sequence.corners.extend(corners)
    missing = [name for name in config.sequences if not found.keys() & set(archive_stems(name))]
    if missing:
        raise DataError(f"sequences {', '.join(sorted(missing))}: not in the labels in {raw}.")
    return found


def _with_images(raw: Path, labels: dict[str, _Sequence], report: DatasetReport) -> dict[str, _Sequence]:
    """The sequences of which there is a folder or a zip; train and val are split by those.

    Raises:
        DataError: fewer than two are there.
    """
    there = {name: found for name, found in labels.items() if folders(raw, name) or archives(raw, name)}
    missing = {f"{archive_stems(name)[-1]}.zip": labels[name] for name in labels if name not in there}
    for archive, sequence in missing.items():
        report.drop("images whose zip is missing", len(sequence.frames), f"{archive} is missing in {raw}.")
    if missing and len(there) < 2:
        raise DataError(
            f"{raw} holds the images of {len(there)} of the {len(labels)} sequences that the labels name: expected at "
            f"least 2, one to train on and one to validate on. Missing are {', '.join(list(missing)[:3])}"
            f"{' and others' if len(missing) > 3 else ''}."
        )
    return there


def _corners(vehicles: list[dict[str, Any]]) -> array:
    numbers: list[float] = []
    for vehicle in vehicles:
        rear, whole = vehicle.get("rear"), vehicle.get("AABB")
        whole, rear = whole or rear, rear or whole
        if whole is None or rear is None:
            continue
        numbers += (whole["x1"], whole["y1"], whole["x2"], whole["y2"], rear["x1"], rear["y1"], rear["x2"], rear["y2"])
    return array("d", numbers)


def _boxes(sequence: _Sequence, config: BoxyConfig, report: DatasetReport) -> _Boxes:
    """The boxes to train on: `rear` where there is one, else `AABB`; a frame with a degenerate box is left out."""
    counts = np.array(sequence.counts, np.int64)
    corners = np.array(sequence.corners, float).reshape(-1, 2, 4)
    whole, rear = corners[:, 0], corners[:, 1]
    frame_of = np.repeat(np.arange(len(counts)), counts)
    extent = (rear[:, :2] < rear[:, 2:]).all(axis=1)  # False for what is not a number, too
    sound = np.bincount(frame_of[~extent], minlength=len(counts)) == 0
    report.drop("images with a degenerate box", int((~sound).sum()))
    size = [FULL_WIDTH, FULL_HEIGHT]
    clipped = np.clip(rear, 0, size * 2)
    centre = (rear[:, :2] + rear[:, 2:]) / 2 / size
    bonnet = (centre[:, 0] >= BONNET_X[0]) & (centre[:, 0] <= BONNET_X[1]) & (centre[:, 1] > BONNET_Y)
    outside = (clipped[:, :2] >= clipped[:, 2:]).any(axis=1)
    small = ((clipped[:, 2:] - clipped[:, :2]) < config.min_box_px).any(axis=1)
    kept = sound[frame_of]
    for reason, wrong in (("boxes on the bonnet", bonnet), ("boxes outside the image", outside),
                          ("boxes too small", small)):  # fmt: skip
        report.drop(reason, int((kept & wrong).sum()))
        kept = kept & ~wrong
    classes = _sides(whole, rear) if config.classes == "sides" else np.zeros(len(rear), np.int64)
    every = np.bincount(frame_of[kept], minlength=len(counts))
    return _Boxes(sequence.frames, every, classes[kept], clipped[kept] / (size * 2)).of(sound)


def _sides(whole: npt.NDArray[np.float64], rear: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """0 left, 1 front, 2 right: where the vehicle drives relative to us, told by the flank that we see."""
    left_flank, right_flank = rear[:, 0] - whole[:, 0], whole[:, 2] - rear[:, 2]
    front = (left_flank <= SAME_EDGE_PX) & (right_flank <= SAME_EDGE_PX)
    return np.where(front, 1, np.where(left_flank > right_flank, 2, 0))
