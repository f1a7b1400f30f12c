"""Boxy (Behrendt 2019) as published -> a YOLO data set: zips of half-size PNG frames, labels in full-size pixels."""

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from model.common.config import Config
from model.common.errors import DataError
from model.common.progress import Log
from model.detection.boxy_images import ZIP_FOLDER, archive_stems, archives, folders, image_name, images
from model.detection.dataset_folder import known_images, replaced_folder
from model.detection.downloads import NotOnServer, Remote
from model.detection.json_rows import json_items
from model.detection.yolo_dataset import DatasetReport, DatasetWriter, Labels, split_groups

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


def convert_boxy(raw: Path, output: Path, config: BoxyConfig, log: Log = lambda line: None) -> DatasetReport:
    """Convert the raw folder (`*.zip` or extracted sequence folders, and label JSON files) to a YOLO data set.

    Extracted images are linked, and so are images of an earlier conversion, instead of being extracted again. The
    complete result replaces `output`. Frames and zips that cannot be used are left out and counted.

    Raises:
        DataError: no labels, a broken label file, no usable image; names it.
    """
    report = DatasetReport()
    labels = _read_labels(raw, config, report)
    sequences: dict[str, dict[int, str]] = {}
    for index, sequence in enumerate(labels.groups):
        sequences.setdefault(sequence, {})[index] = labels.files[index]
    part_of = split_groups(list(sequences), config.val_share)
    with replaced_folder(output) as (new, earlier):
        writer = DatasetWriter(new, CLASSES[config.classes], report)
        known = known_images(earlier)
        for number, sequence in enumerate(sorted(sequences), 1):
            part = part_of[sequence]
            report.groups[part].append(sequence)
            used = writer.add(part, labels, images(raw, known, sequence, sequences[sequence], report))
            log(f"Sequence {number} of {len(part_of)} ({part}): {sequence}, {len(used):,} images")
        writer.finish(raw, "the zips of the sequences that the label files name, or their folders")
    return report


def download_boxy(remote: Remote, raw: Path, config: BoxyConfig, log: Log = lambda line: None) -> None:
    """Download the labels, and the sequences' zips that are missing in `raw`. A zip missing on the server is left out.

    Raises:
        DataError: no labels, or a file cannot be downloaded or is damaged; names the file, not the address.
    """

    wanted = [[name] for name in PUBLISHED_LABELS]
    remote.fetch(wanted.pop(0), raw / PUBLISHED_LABELS[0], log)
    for names in itertools.chain(wanted, _missing_zips(raw, config)):
        try:
            remote.fetch(names, raw / PurePosixPath(names[-1]).name, log)
        except NotOnServer:
            log(f"{names[-1]} is not on the server and is left out")


def _missing_zips(raw: Path, config: BoxyConfig) -> Iterator[list[str]]:
    """The names that a zip may have on the server, of each sequence that is not in `raw`."""
    for sequence in sorted({sequence for _, sequence, _, _ in _frames(raw, config)}):
        if not folders(raw, sequence) and not archives(raw, sequence):
            name = f"{archive_stems(sequence)[-1]}.zip"
            yield [f"{ZIP_FOLDER}/{name}", name]


def _frames(raw: Path, config: BoxyConfig) -> Iterator[tuple[Path, str, str, Any]]:
    """Yield (file, sequence, frame, label) of the chosen sequences, row by row: the files may exceed the memory.

    Raises:
        DataError: there are no labels, a frame has another name, or a chosen sequence is missing.
    """
    files = sorted(path for path in raw.glob(LABELS) if not path.name.startswith(".")) if raw.is_dir() else []
    if not files:
        raise DataError(
            f"{raw} holds no Boxy labels: expected {PUBLISHED_LABELS[0]} beside the zips. Download them, or make a "
            "simulated set with `drive-assets simulate`."
        )
    wanted = {stem: name for name in config.sequences for stem in archive_stems(name)}
    missing = set(config.sequences)
    for path in files:
        for name, label in json_items(path):
            match = _FRAME.match(name)
            if match is None or ".." in name:
                raise DataError(f"{path}, label of {name!r}: expected a frame as ./<sequence>/<frame>.png.")
            sequence = match["sequence"]
            if not wanted or sequence in wanted:
                missing.discard(wanted.get(sequence, ""))
                yield path, sequence, match["frame"], label
    if missing:
        raise DataError(f"sequences {', '.join(sorted(missing))}: not in the labels in {raw}. Check their names.")


def _read_labels(raw: Path, config: BoxyConfig, report: DatasetReport) -> Labels:
    """Labels of the frames of the sequences that have a folder or a zip.

    Raises:
        DataError: fewer than two sequences have one.
    """
    labels = Labels(config.min_box_px, report)
    seen: set[str] = set()
    present: dict[str, bool] = {}
    missing: Counter[str] = Counter()
    for path, sequence, frame, label in _frames(raw, config):
        if sequence not in present:
            present[sequence] = bool(folders(raw, sequence) or archives(raw, sequence))
        if not present[sequence]:
            missing[f"{archive_stems(sequence)[-1]}.zip"] += 1
            continue
        file = f"{frame}.png"
        name = image_name(sequence, file)
        if name in seen:
            report.drop("labels that occur twice")
            continue
        seen.add(name)
        try:
            flawed = any(flaw != FLAWLESS for flaw in label.get("flaws") or ())
            boxes = [_box(vehicle) for vehicle in label["vehicles"] if vehicle.get("rear") or vehicle.get("AABB")]
            degenerate = any(x1 >= x2 or y1 >= y2 for _, (x1, y1, x2, y2) in boxes)
        except (KeyError, TypeError, AttributeError):
            report.drop("labels that cannot be read", 1, f"{path}, {sequence}, {frame}: the label cannot be read.")
            continue
        if flawed or degenerate:
            report.drop("images with flaws" if flawed else "images with a degenerate box")
            continue
        image = labels.add_image(name, file, sequence, (FULL_WIDTH, FULL_HEIGHT))
        for side, corners in boxes:
            if _on_bonnet(*corners):
                report.drop("boxes on the bonnet")
            else:
                labels.add_box(image, side if config.classes == "sides" else 0, *corners)
    for archive, count in missing.items():
        report.drop("images whose zip is missing", count, f"{archive} is missing in {raw}.")
    if missing and sum(present.values()) < 2:
        raise DataError(
            f"{raw} holds the images of {sum(present.values())} of the {len(present)} sequences that the labels name: "
            "expected at least 2, one to train on and one to validate on. The first missing: "
            f"{', '.join(list(missing)[:3])}."
        )
    return labels


def _box(vehicle: dict[str, Any]) -> tuple[int, tuple[float, float, float, float]]:
    """The side that a vehicle shows and the corners of its rear, or of the whole vehicle if the rear is not given.

    The side is 0 left, 1 front, 2 right: where the vehicle drives relative to us, from the flank that is visible.
    """
    rear, whole = vehicle.get("rear") or vehicle["AABB"], vehicle.get("AABB") or vehicle["rear"]
    corners = rear["x1"], rear["y1"], rear["x2"], rear["y2"]
    left_flank, right_flank = rear["x1"] - whole["x1"], whole["x2"] - rear["x2"]
    if left_flank <= SAME_EDGE_PX and right_flank <= SAME_EDGE_PX:
        return 1, corners
    return 2 if left_flank > right_flank else 0, corners


def _on_bonnet(x1: float, y1: float, x2: float, y2: float) -> bool:
    x, y = (x1 + x2) / 2 / FULL_WIDTH, (y1 + y2) / 2 / FULL_HEIGHT
    return BONNET_X[0] <= x <= BONNET_X[1] and y > BONNET_Y
