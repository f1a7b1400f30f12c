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
from model.common.progress import Log
from model.detection.boxy_images import ZIP_FOLDER, archive_stems, archives, folders, image_name, images
from model.detection.dataset_folder import known_images, replaced_folder
from model.detection.downloads import NotOnServer, Remote
from model.detection.json_rows import json_items
from model.detection.yolo_dataset import DatasetReport, DatasetWriter, LabelledImages, split_groups

FULL_WIDTH, FULL_HEIGHT = 2464, 2056
BONNET_X, BONNET_Y = (0.35, 0.65), 0.90
"""Boxes with their centre here show the bonnet of the recording car."""
SAME_EDGE_PX = 10
"""If rear and whole box differ less than this on both sides, the vehicle is seen from straight behind."""
CLASSES = {"vehicle": ("vehicle",), "sides": ("vehicle.left", "vehicle.front", "vehicle.right")}
FLAWLESS = "no-issues"
"""The published labels' entry for a frame without flaws."""
LABELS = "*labels*.json"
PUBLISHED_LABELS = ("boxy_labels_train.json", "boxy_labels_valid.json")
_FRAME = re.compile(r"^\./(?P<sequence>[\w.-]+)/(?P<frame>[\w.-]+)\.png$")


class BoxyConfig(Config):
    """Options of the conversion of Boxy."""

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
    """Labels of a sequence's frames in their order."""

    frames: list[str] = field(default_factory=list)
    counts: array = field(default_factory=lambda: array("q"))
    """Vehicles of each frame."""
    corners: array = field(default_factory=lambda: array("d"))
    """Eight numbers a vehicle: x1, y1, x2, y2 of all of it, then of its rear; each the other's where one is missing."""


def convert_boxy(raw: Path, output: Path, config: BoxyConfig, log: Log = lambda line: None) -> DatasetReport:
    """Convert the raw folder (`*.zip` or extracted sequence folders, and label JSON files) to a YOLO data set.

    Extracted images are linked, and so are images of an earlier conversion, instead of being extracted again. The
    complete result replaces `output`. Frames and zips that cannot be used are left out and counted.

    Raises:
        DataError: no labels, a broken label file, no usable image; names it.
    """
    report = DatasetReport()
    labels = _with_images(raw, _read_labels(raw, config, report), report)
    part_of = split_groups(list(labels), config.val_share)
    with replaced_folder(output) as (new, earlier):
        writer = DatasetWriter(new, CLASSES[config.classes], report)
        known = known_images(earlier)
        for number, sequence in enumerate(sorted(labels), 1):
            part, frames, labelled = part_of[sequence], *_labelled(sequence, labels.pop(sequence), config, report)
            report.groups[part].append(sequence)
            full_size = np.tile([FULL_WIDTH, FULL_HEIGHT], (len(frames), 1))
            used = writer.add(part, labelled, full_size, images(raw, known, sequence, frames, report))
            log(f"Sequence {number} of {len(part_of)} ({part}): {sequence}, {used.sum():,} images")
        writer.finish(raw, "the zips of the sequences that the label files name, or their folders")
    return report


def download_boxy(remote: Remote, raw: Path, config: BoxyConfig, log: Log = lambda line: None) -> None:
    """Download the labels, and the sequences' zips that are missing in `raw`. A zip missing on the server is left out.

    Raises:
        DataError: no labels, or a file cannot be downloaded or is damaged; names the file, not the address.
    """

    def fetch(names: list[str], required: bool = False) -> None:
        try:
            remote.fetch(names, raw / PurePosixPath(names[-1]).name, log)
        except NotOnServer:
            if required:
                raise
            log(f"{names[-1]} is not on the server and is left out")

    for name in PUBLISHED_LABELS:
        fetch([name], required=name == PUBLISHED_LABELS[0])
    for sequence in sorted(_read_labels(raw, config, DatasetReport())):
        if not folders(raw, sequence) and not archives(raw, sequence):
            name = f"{archive_stems(sequence)[-1]}.zip"
            fetch([f"{ZIP_FOLDER}/{name}", name])


def _read_labels(raw: Path, config: BoxyConfig, report: DatasetReport) -> dict[str, _Sequence]:
    """Labels of the chosen sequences, read frame by frame: Boxy's files are larger than many memories."""
    files = sorted(path for path in raw.glob(LABELS) if not path.name.startswith(".")) if raw.is_dir() else []
    if not files:
        raise DataError(
            f"{raw} holds no Boxy labels: expected {PUBLISHED_LABELS[0]} beside the zips. Download them, or make a "
            "simulated set with `drive-assets simulate`."
        )
    wanted = {stem for sequence in config.sequences for stem in archive_stems(sequence)}
    labels: dict[str, _Sequence] = {}
    seen: set[str] = set()
    for path in files:
        for name, label in json_items(path):
            match = _FRAME.match(name)
            if match is None or ".." in name:
                raise DataError(f"{path}, label of {name!r}: expected a frame as ./<sequence>/<frame>.png.")
            if wanted and match["sequence"] not in wanted:
                continue
            sequence = labels.setdefault(match["sequence"], _Sequence())
            if name in seen:
                report.drop("labels that occur twice")
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
    missing = [name for name in config.sequences if not labels.keys() & set(archive_stems(name))]
    if missing:
        raise DataError(f"sequences {', '.join(sorted(missing))}: not in the labels in {raw}. Check their names.")
    return labels


def _with_images(raw: Path, labels: dict[str, _Sequence], report: DatasetReport) -> dict[str, _Sequence]:
    """The sequences that have a folder or a zip; only those are split into train and val.

    Raises:
        DataError: there are fewer than two.
    """
    present = {name: labels[name] for name in labels if folders(raw, name) or archives(raw, name)}
    missing = {f"{archive_stems(name)[-1]}.zip": labels[name] for name in labels if name not in present}
    for archive, sequence in missing.items():
        report.drop("images whose zip is missing", len(sequence.frames), f"{archive} is missing in {raw}.")
    if missing and len(present) < 2:
        raise DataError(
            f"{raw} holds the images of {len(present)} of the {len(labels)} sequences that the labels name: expected "
            f"at least 2, one to train on and one to validate on. Missing are {', '.join(list(missing)[:3])}"
            f"{' and others' if len(missing) > 3 else ''}."
        )
    return present


def _corners(vehicles: list[dict[str, Any]]) -> array:
    numbers: list[float] = []
    for vehicle in vehicles:
        rear, whole = vehicle.get("rear"), vehicle.get("AABB")
        whole, rear = whole or rear, rear or whole
        if whole is None or rear is None:
            continue
        numbers += (whole["x1"], whole["y1"], whole["x2"], whole["y2"], rear["x1"], rear["y1"], rear["x2"], rear["y2"])
    return array("d", numbers)


def _labelled(
    name: str, sequence: _Sequence, config: BoxyConfig, report: DatasetReport
) -> tuple[list[str], LabelledImages]:
    """Frames of a sequence and their boxes: `rear` or else `AABB`. A frame with a degenerate box is left out."""
    counts = np.array(sequence.counts, np.int64)
    corners = np.array(sequence.corners, float).reshape(-1, 2, 4)
    whole, rear = corners[:, 0], corners[:, 1]
    frame_of = np.repeat(np.arange(len(counts)), counts)
    degenerate = (rear[:, :2] >= rear[:, 2:]).any(axis=1)
    intact = np.bincount(frame_of[degenerate], minlength=len(counts)) == 0
    report.drop("images with a degenerate box", int((~intact).sum()))
    size = [FULL_WIDTH, FULL_HEIGHT]
    clipped = np.clip(rear, 0, size * 2)
    centre = (rear[:, :2] + rear[:, 2:]) / 2 / size
    faults = {
        "boxes on the bonnet": (centre[:, 0] >= BONNET_X[0])
        & (centre[:, 0] <= BONNET_X[1])
        & (centre[:, 1] > BONNET_Y),
        "boxes outside the image": (clipped[:, :2] >= clipped[:, 2:]).any(axis=1),
        "boxes too small": ((clipped[:, 2:] - clipped[:, :2]) < config.min_box_px).any(axis=1),
    }
    kept = report.keep(intact[frame_of], faults)
    classes = _sides(whole, rear) if config.classes == "sides" else np.zeros(len(rear), np.int64)
    per_frame = np.bincount(frame_of[kept], minlength=len(counts))
    names = [image_name(name, frame) for frame in sequence.frames]
    labelled = LabelledImages(names, per_frame, classes[kept], clipped[kept] / (size * 2)).select(intact)
    return [frame for frame, keep in zip(sequence.frames, intact.tolist(), strict=True) if keep], labelled


def _sides(whole: npt.NDArray[np.float64], rear: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """0 left, 1 front, 2 right: where the vehicle drives relative to us, from the flank that is visible."""
    left_flank, right_flank = rear[:, 0] - whole[:, 0], whole[:, 2] - rear[:, 2]
    front = (left_flank <= SAME_EDGE_PX) & (right_flank <= SAME_EDGE_PX)
    return np.where(front, 1, np.where(left_flank > right_flank, 2, 0))
