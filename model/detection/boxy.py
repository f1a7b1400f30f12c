"""Boxy (Behrendt 2019) as published -> a YOLO data set: zips of half-size PNG frames, labels in full-size pixels."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from pydantic import Field

from model.common.config import Config
from model.common.errors import DataError
from model.common.progress import Log
from model.detection.downloads import DamagedArchive, NotOnServer, Remote, extract_archives
from model.detection.json_rows import json_items
from model.detection.yolo_dataset import DatasetReport, LabelledImage, split_groups, write_dataset

FULL_WIDTH, FULL_HEIGHT = 2464, 2056
BONNET_X, BONNET_Y = (0.35, 0.65), 0.90
"""Boxes with their centre here show the bonnet of the recording car."""
SAME_EDGE_PX = 10
"""If rear and whole box differ less than this on both sides, the vehicle is seen from straight behind."""
CLASSES = {"vehicle": ("vehicle",), "sides": ("vehicle.left", "vehicle.front", "vehicle.right")}
WITHOUT_ZIP = "images whose zip is missing or damaged"
FLAWLESS = "no-issues"
"""The published labels' entry for a frame without flaws."""
LABELS = "*labels*.json"
PUBLISHED_LABELS = ("boxy_labels_train.json", "boxy_labels_valid.json")
ZIP_FOLDER = "boxy_raw_scaled"
"""Folder of the zips on the publisher's server, beside the labels."""
FRAMES = "boxy_frames"
"""Folder beside the data set: the frames of each zip, extracted once."""
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

    Zips are extracted beside `output`, each once, and all images are linked. The complete result replaces `output`.
    Frames and zips that cannot be used are left out and counted.

    Raises:
        DataError: no labels, a broken label file, no usable image; names it.
    """
    report = DatasetReport()
    images = _read_labels(raw, output.with_name(FRAMES), config, report, log)
    part_of = split_groups(list({image.group for image in images}), config.val_share)
    write_dataset(output, raw, CLASSES[config.classes], images, part_of, report, log)
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
    for sequence in sorted({sequence for _, sequence, _, _ in _labels(raw, config)}):
        if _find(raw, sequence) is None:
            name = f"{_stems(sequence)[-1]}.zip"
            yield [f"{ZIP_FOLDER}/{name}", name]


def _stems(sequence: str) -> tuple[str, ...]:
    """Names, without suffix, that a sequence's zip may have."""
    return (sequence,) if sequence.startswith("bluefox_") else (sequence, f"bluefox_{sequence}_bag")


def _find(raw: Path, sequence: str) -> Path | None:
    """The folder or, if there is none, the zip of a sequence's frames."""
    places = (raw, raw / ZIP_FOLDER)
    folders = [path for place in places if (path := place / sequence).is_dir()]
    zips = [path for place in places for stem in _stems(sequence) if (path := place / f"{stem}.zip").is_file()]
    return next(iter(folders + zips), None)


def _frames(raw: Path, sequence: str, extracted: Path, log: Log) -> dict[str, str]:
    """Paths of a sequence's frames by file name. A zip is extracted to a folder of `extracted` first.

    Raises:
        DamagedArchive: the zip is missing or damaged; names it.
    """
    found = _find(raw, sequence)
    if found is None:
        raise DamagedArchive(f"{_stems(sequence)[-1]}.zip is missing in {raw}.")
    if found.is_file():
        archive, found = found, extracted / found.stem
        extract_archives(found, [archive], lambda name: name.endswith(".png"), log)
    return {path.name: str(path) for path in found.rglob("*.png")}


def _labels(raw: Path, config: BoxyConfig) -> Iterator[tuple[Path, str, str, Any]]:
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
    wanted = {stem: name for name in config.sequences for stem in _stems(name)}
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


def _read_labels(raw: Path, frames: Path, config: BoxyConfig, report: DatasetReport, log: Log) -> list[LabelledImage]:
    """The labelled images of the sequences that have a folder or a whole zip.

    Raises:
        DataError: fewer than two sequences have one.
    """
    images: list[LabelledImage] = []
    paths: dict[str, dict[str, str]] = {}
    for file, sequence, frame, label in _labels(raw, config):
        if sequence not in paths:
            try:
                paths[sequence] = _frames(raw, sequence, frames, log)
            except DamagedArchive as problem:
                paths[sequence] = {}
                report.drop(WITHOUT_ZIP, 0, str(problem))
        name = f"{frame}.png"
        if not paths[sequence]:
            report.drop(WITHOUT_ZIP)
            continue
        source = paths[sequence].get(name, f"{raw}/{sequence}/{name}")
        image = LabelledImage(source, f"{sequence}__{name}", sequence, FULL_WIDTH, FULL_HEIGHT)
        try:
            if flaw := _add_boxes(image, label, config, report):
                report.drop(flaw)
            else:
                images.append(image)
        except (KeyError, TypeError, AttributeError):
            report.drop("labels that cannot be read", 1, f"{file}, {sequence}, {frame}: the label cannot be read.")
    present = [sequence for sequence, found in paths.items() if found]
    if len(present) < 2 <= len(paths):
        raise DataError(
            f"{raw} holds the images of {len(present)} of the {len(paths)} sequences that the labels name: expected "
            f"at least 2, one to train on and one to validate on. {' '.join(report.problems[:3])}"
        )
    return images


def _add_boxes(image: LabelledImage, label: Any, config: BoxyConfig, report: DatasetReport) -> str:
    """Add a label's boxes to its image; returns why the image is to be left out, or an empty text.

    Raises:
        KeyError, TypeError, AttributeError: the label cannot be read.
    """
    if any(flaw != FLAWLESS for flaw in label.get("flaws") or ()):
        return "images with flaws"
    dropped = []
    for vehicle in label["vehicles"]:
        rear, whole = vehicle.get("rear"), vehicle.get("AABB")
        if not (box := rear or whole):
            continue
        x1, y1, x2, y2 = box["x1"], box["y1"], box["x2"], box["y2"]
        if x1 >= x2 or y1 >= y2:
            return "images with a degenerate box"
        number = _side(box, whole or box) if config.classes == "sides" else 0
        x, y = (x1 + x2) / 2 / FULL_WIDTH, (y1 + y2) / 2 / FULL_HEIGHT
        if y > BONNET_Y and BONNET_X[0] <= x <= BONNET_X[1]:
            dropped.append("boxes on the bonnet")
        elif reason := image.add_box(number, x1, y1, x2, y2, config.min_box_px):
            dropped.append(reason)
    for reason in dropped:
        report.drop(reason)
    return ""


def _side(rear: dict[str, float], whole: dict[str, float]) -> int:
    """0 left, 1 front, 2 right: where a vehicle drives relative to us, from the flank that is visible."""
    left_flank, right_flank = rear["x1"] - whole["x1"], whole["x2"] - rear["x2"]
    if left_flank <= SAME_EDGE_PX and right_flank <= SAME_EDGE_PX:
        return 1
    return 2 if left_flank > right_flank else 0
