"""nuImages v1.0 as published -> a YOLO data set: tables of JSON rows that refer to each other by tokens.

Tables: github.com/nutonomy/nuscenes-devkit, docs/schema_nuimages.md. Those of the full set take half a gigabyte each,
mostly for masks: they are read row by row, once, and only the columns in use are kept.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import Field

from model.common.config import Config
from model.common.errors import DataError
from model.common.progress import Log
from model.detection.downloads import Remote, extract_archives
from model.detection.json_rows import json_rows
from model.detection.yolo_dataset import DatasetReport, LabelledImage, split_groups, write_dataset

CLASSES = ("person", "vehicle.car", "vehicle.motorcycle", "vehicle.bus", "vehicle.truck", "trafficcone")
CATEGORIES = {
    "human.pedestrian.adult": "person",
    "vehicle.car": "vehicle.car",
    "vehicle.motorcycle": "vehicle.motorcycle",
    "vehicle.bus": "vehicle.bus",
    "vehicle.bus.rigid": "vehicle.bus",
    "vehicle.bus.bendy": "vehicle.bus",
    "vehicle.truck": "vehicle.truck",
    "vehicle.trailer": "vehicle.truck",
    "movable_object.trafficcone": "trafficcone",
}
PUBLISHED = {"v1.0-train": "train", "v1.0-val": "val"}
MINI = "v1.0-mini"
ARCHIVES = ("nuimages-v1.0-all-metadata.tgz", "nuimages-v1.0-all-samples.tgz")
_WANTED = re.compile(r"^(\./)?(v1\.0-\w+/\w+\.json|samples/CAM_\w+/[^/]+\.jpg)$")
_FILE = re.compile(r"^samples/\w+/[\w.+-]+\.jpg$")


class NuimagesConfig(Config):
    """Options of the conversion of nuImages."""

    cameras: list[str] = Field(["CAM_FRONT", "CAM_BACK"], min_length=1, description="Cameras, such as CAM_FRONT_LEFT")
    sets: list[str] = Field([], description="Folders of tables; empty: v1.0-train and v1.0-val, else v1.0-mini")
    min_box_px: float = Field(0.0, ge=0, description="Boxes narrower or lower than this (px) are dropped")
    val_share: float = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of logs for validation, whole, where the sets are not published as train and val",
    )


def convert_nuimages(raw: Path, output: Path, config: NuimagesConfig, log: Log = lambda line: None) -> DatasetReport:
    """Convert a raw folder (`v1.0-*/*.json`, `samples/CAM_*/*.jpg`) to a YOLO data set with linked images.

    Images of the published train and val sets stay in theirs, and a log is never in both. The complete result replaces
    `output`. Images and boxes that cannot be used are left out and counted.

    Raises:
        DataError: no tables, a table that is broken or has no such column, no usable image; names it.
    """
    report = DatasetReport()
    sets = {name: _read_set(raw, name, config, report, log) for name in _sets(raw, config)}
    part_of = _split({name: {image.group for image in images} for name, images in sets.items()}, config)
    write_dataset(output, raw, CLASSES, [image for images in sets.values() for image in images], part_of, report, log)
    return report


def download_nuimages(remote: Remote, raw: Path, archives: Sequence[str], log: Log = lambda line: None) -> None:
    """Download the published archives that are missing in `raw`.

    Raises:
        DataError: an archive cannot be downloaded; names the file, not the address.
    """
    for name in archives:
        if PurePosixPath(name).name != name:
            raise DataError(f"archives {name!r}: expected a file name, such as {ARCHIVES[0]}.")
        remote.fetch([name], raw / name, log)


def extract_nuimages(raw: Path, log: Log = lambda line: None) -> None:
    """Extract tables and key frames, but not the sweeps, from the archives in `raw`, each once."""
    archives = sorted(path for path in raw.glob("*.tgz") if not path.name.startswith("."))
    extract_archives(raw, archives, lambda name: _WANTED.match(name) is not None, log)


def _sets(raw: Path, config: NuimagesConfig) -> list[str]:
    """The sets to read: not mini beside train and val, of which it is a part, and not test, which has no boxes."""
    present = [name for name in PUBLISHED if (raw / name).is_dir()] or [MINI]
    names = list(config.sets) or present
    missing = [name for name in names if not (raw / name).is_dir()]
    if any(True for _ in raw.glob("v1.0-*/sample_annotation.json")):
        raise DataError(
            f"{raw} holds nuScenes, which has boxes in space: expected nuImages, its makers' set of images with boxes "
            "in px (nuimages-v1.0-all-metadata.tgz and nuimages-v1.0-all-samples.tgz)."
        )
    deeper = next((path.parent for path in sorted(raw.glob("*/v1.0-*")) if path.is_dir()), None)
    if missing and deeper:
        raise DataError(f"{raw} holds the tables one folder deeper: name {deeper} as raw, or move its content up.")
    if missing:
        raise DataError(
            f"{raw} holds no {' and no '.join(missing)}: expected the tables of nuImages v1.0 (v1.0-train and "
            "v1.0-val, or v1.0-mini, each a folder of JSON files) beside its samples/. Put the archives or their "
            "content there, or name another folder (raw) or an address to fetch them from (url) in the launchpad."
        )
    return names


def _rows(path: Path, *columns: str) -> Iterator[tuple[Any, ...]]:
    """The columns of a table, row by row."""
    for number, row in enumerate(json_rows(path), 1):
        try:
            yield tuple([row[column] for column in columns])
        except KeyError as error:
            raise DataError(f"{path}, row {number}: no {error}; expected {', '.join(columns)}.") from error


def _read_set(raw: Path, name: str, config: NuimagesConfig, report: DatasetReport, log: Log) -> list[LabelledImage]:
    """The key frames of the chosen cameras with their boxes."""
    images, unused = _read_images(raw, raw / name, config, report)
    log(f"{name}: {len(images):,} images of {', '.join(config.cameras)}")
    path = raw / name / "object_ann.json"
    category_of = dict(_rows(raw / name / "category.json", "token", "name"))
    class_of = {token: CLASSES.index(CATEGORIES[name]) for token, name in category_of.items() if name in CATEGORIES}
    for token, category, key, box in _rows(path, "token", "category_token", "sample_data_token", "bbox"):
        if key in unused:
            continue
        if category in category_of and category not in class_of:
            report.drop("boxes of other classes")
            continue
        try:
            x1, y1, x2, y2 = box
            if reason := images[key].add_box(class_of[category], x1, y1, x2, y2, config.min_box_px):
                report.drop(reason)
        except (LookupError, TypeError, ValueError):
            text = f"category {category}, image {key}, bbox {str(box)[:60]}"
            report.drop("boxes that cannot be read", 1, f"{path}, {token}: {text}.")
    return list(images.values())


def _read_images(
    raw: Path, folder: Path, config: NuimagesConfig, report: DatasetReport
) -> tuple[dict[str, LabelledImage], set[str]]:
    """The key frames of the chosen cameras by token, and the tokens of unusable ones and those of other cameras."""
    camera_of = _cameras(folder, config)
    logfile_of = dict(_rows(folder / "log.json", "token", "logfile"))
    log_of = {key: log for log, key in _rows(folder / "sample.json", "log_token", "key_camera_token")}
    images, unused = dict[str, LabelledImage](), set[str]()
    path = folder / "sample_data.json"
    columns = ("token", "calibrated_sensor_token", "filename", "width", "height")
    for token, sensor, file, width, height in _rows(path, *columns):
        if token not in log_of:  # between the key frames; without boxes
            continue
        log = log_of.pop(token)
        if sensor in camera_of and camera_of[sensor] not in config.cameras:
            unused.add(token)
            continue
        sized = isinstance(width, int) and isinstance(height, int) and min(width, height) > 0
        if not isinstance(file, str) or not _FILE.match(file):
            raise DataError(f"{path}, {token}: filename {file!r}: expected samples/<camera>/<name>.jpg.")
        if sensor not in camera_of or log not in logfile_of or not sized:
            text = f"calibrated sensor {sensor}, log {log}, size {width}x{height}"
            report.drop("images whose rows cannot be read", 1, f"{path}, {token}: {text}.")
            unused.add(token)
        else:
            name = PurePosixPath(file).name
            images[token] = LabelledImage(f"{raw}/{file}", name, str(logfile_of[log]), width, height)
    if log_of:
        report.drop(
            "samples whose image is not in sample_data",
            len(log_of),
            f"{folder / 'sample.json'}: key_camera_token {next(iter(log_of))} is not in sample_data.json.",
        )
    return images, unused


def _cameras(folder: Path, config: NuimagesConfig) -> dict[str, str | None]:
    """Camera by token of a calibrated sensor. DataError if a chosen one is not there."""
    channel_of = dict(_rows(folder / "sensor.json", "token", "channel"))
    unknown = sorted(set(config.cameras) - set(channel_of.values()))
    if unknown:
        raise DataError(
            f"{folder / 'sensor.json'} has no {', '.join(unknown)}: it has {', '.join(sorted(channel_of.values()))}."
        )
    calibrated = _rows(folder / "calibrated_sensor.json", "token", "sensor_token")
    return {token: channel_of.get(sensor) for token, sensor in calibrated}


def _split(logs: Mapping[str, set[str]], config: NuimagesConfig) -> dict[str, str]:
    """Train or val by log, from the logs of each set: as published, else anew. A log of two sets is trained on."""
    every = set().union(*logs.values())
    if set(PUBLISHED) <= set(logs):
        trained = set().union(*(logs[name] for name in logs if PUBLISHED.get(name) != "val"))
        if trained and every - trained:
            return {log: "train" if log in trained else "val" for log in every}
    return split_groups(sorted(every), config.val_share) if every else {}
