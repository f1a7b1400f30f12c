"""A recording on disk: the names of its files, how they are read, and whether it can be used."""

import contextlib
import os
import re
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pydantic import NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from model.common.errors import DataError
from model.common.files import sha256, write_json
from model.recording.annotations import Annotations, read_annotations
from model.recording.dialect import MAY_BE_MISSING, MOST_UNREADABLE, ReadingConfig
from model.recording.frame_files import frame_name, is_frame, is_whole, repeated_frames
from model.recording.labels import (
    CONFIG_SUFFIX,
    DERIVED_BRAKE,
    LabelConfig,
    derived_brake,
    read_future_labels,
    read_label_config,
)
from model.recording.schema import BRAKE
from model.recording.tables import read_object
from model.recording.telemetry import TelemetryReport, read_telemetry
from model.recording.times import read_times

TELEMETRY = "telemetry.csv"
ANNOTATIONS = "annotations.csv"
TRUE_ANNOTATIONS = "true_annotations.csv"
"""The true boxes of a simulated camera's frames."""
DETAILS = "annotations.json"
"""How the annotations were made: the detector's class names, its region of interest, ..."""
LABELS = "future_labels.csv"
ROI = "roi.json"
"""The region of interest of the recording's own camera mounting."""
READING = "reading.json"
"""Options of `ReadingConfig` that the recording's telemetry is read with."""
ORIGIN = ".source.json"
"""The source that the recording was made from."""
IMPORTED = "origin.json"
"""What an imported recording was made from: its kind, drivetrain, clock offset, licence and notes."""
SHADOW = "shadow.csv"
"""What a bundle in the car anticipated while the drive was recorded."""
CONTENT = (TELEMETRY, ANNOTATIONS, LABELS, READING)
"""Files that windows are made from. The last is optional."""
AS_RECORDED = [0.0, 100.0]
"""The range of a pedal that needs no rescaling."""
EXAMPLES = 10
"""Names that a report or an error lists of each kind."""
_NAME = re.compile(r"\d{4}-\d{2}-\d{2}_\d{2}-\d{2}-\d{2}", re.ASCII)
DEFAULT_CLASSES = ("vehicle",)


class Region(NamedTuple):
    """A rectangle of a frame, px."""

    x: NonNegativeInt
    y: NonNegativeInt
    width: PositiveInt
    height: PositiveInt


_REGION = TypeAdapter(Region)
DEFAULT_REGION = Region(0, 320, 1920, 575)


@dataclass(frozen=True)
class Recording:
    """A drive: telemetry, frames of a camera, the vehicles in them, and what the driver did next."""

    folder: Path

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def telemetry_path(self) -> Path:
        return self.folder / TELEMETRY

    @property
    def labels_path(self) -> Path:
        return self.folder / LABELS

    @property
    def label_config_path(self) -> Path:
        return self.labels_path.with_suffix(CONFIG_SUFFIX)

    @property
    def annotations_path(self) -> Path:
        return self.folder / ANNOTATIONS

    @property
    def details_path(self) -> Path:
        return self.folder / DETAILS

    @property
    def roi_path(self) -> Path:
        return self.folder / ROI

    @property
    def reading_path(self) -> Path:
        return self.folder / READING

    @cached_property
    def imported(self) -> dict[str, Any]:
        """What the recording was imported from; empty if it was recorded in our layout.

        Raises:
            DataError: the file is not a JSON object.
        """
        return read_object(self.folder / IMPORTED, "what the recording was imported from; import it again")

    @property
    def drivetrain(self) -> str:
        """combustion, hybrid, electric or unknown, as declared or imported; empty if neither."""
        return self.reading().drivetrain or (self.imported and self.imported.get("drivetrain", "unknown")) or ""

    def digests(self) -> dict[str, str]:
        """SHA-256 by name of the files in CONTENT that exist."""
        return {name: sha256(self.folder / name) for name in CONTENT if (self.folder / name).is_file()}

    def telemetry(self, most_unreadable: float = 1.0) -> tuple[pd.DataFrame, TelemetryReport]:
        """As `read_telemetry`, with the column DERIVED_BRAKE where a combustion car has no brake signal.

        How many rows may be unreadable was decided when the recording was taken.
        """
        config = self.reading().replace(most_unreadable=most_unreadable, drivetrain=self.drivetrain)
        if self.imported:
            config = config.replace(missing_channels=list(MAY_BE_MISSING))
        table, report = read_telemetry(self.telemetry_path, config)
        if BRAKE not in table and config.drivetrain == "combustion":
            table[DERIVED_BRAKE] = derived_brake(table)
        return table, report

    def reading(self) -> ReadingConfig:
        """How the telemetry is read: the options in reading.json.

        Raises:
            DataError: the file is wrong.
        """
        example = '{"pedal_range": [at rest, fully pressed]}'
        try:
            return ReadingConfig(**read_object(self.reading_path, example))
        except (DataError, TypeError) as error:
            raise DataError(
                f"{self.reading_path}: expected options such as {example} ({error}); correct it."
            ) from error

    def keep_reading(self, config: ReadingConfig) -> None:
        """Keep the options that `config` sets in reading.json, with those that are there."""
        declared = self.reading().declared() | config.declared()
        if declared.get("pedal_range") == AS_RECORDED:
            del declared["pedal_range"]
        if declared:
            write_json(self.reading_path, declared)
        else:
            self.reading_path.unlink(missing_ok=True)

    def annotations(self) -> Annotations:
        """As `read_annotations`."""
        return read_annotations(self.annotations_path)

    def labels(self) -> pd.DataFrame:
        """As `read_future_labels`."""
        return read_future_labels(self.labels_path)

    def label_config(self) -> LabelConfig:
        """As `read_label_config`."""
        return read_label_config(self.labels_path)

    def frames(self) -> dict[str, Path]:
        """Files of the camera's frames by the Time of their rows, in its order."""
        frames: dict[str, Path] = {}
        with os.scandir(self.folder) as entries:
            names = sorted(entry.name for entry in entries if is_frame(entry.name))
        times, _, _ = read_times(np.array([name.rpartition(".")[0] for name in names], object))
        for time, name in sorted(zip(times, names, strict=True)):
            frames.setdefault(time, self.folder / name)
        return frames

    def region(self) -> Region | None:
        """The region of interest in the recording's own roi.json ({"x", "y", "width", "height"}), if there is one.

        Other keys are ignored, and fractions of a pixel are cut off.

        Raises:
            DataError: the file holds no region.
        """
        if not self.roi_path.is_file():
            return None
        expected = '{"x": .., "y": .., "width": .., "height": ..} in px'
        content = read_object(self.roi_path, expected)
        try:
            region = [int(content[name]) for name in Region._fields]
        except (ValueError, KeyError, TypeError, OverflowError) as error:
            raise DataError(f"{self.roi_path}: expected {expected} ({error}).") from error
        return check_region(region, str(self.roi_path))

    @cached_property
    def details(self) -> dict[str, Any]:
        """How the annotations were made; empty if that is not recorded, as of those made elsewhere.

        Raises:
            DataError: the file is not a JSON object.
        """
        return read_object(self.details_path, "details of annotations; annotate the recording again")

    def class_names(self) -> tuple[str, ...]:
        """Names of the class ids in the annotations."""
        return tuple(self.details.get("class_names", DEFAULT_CLASSES))

    def annotated_region(self) -> Region:
        """The region of interest that the boxes are in the pixels of; the default one if that is not recorded.

        Raises:
            DataError: the details hold no region.
        """
        return check_region(self.details.get("roi", DEFAULT_REGION), str(self.details_path))


def check_region(region: Any, what: str) -> Region:
    """`region`, x, y, width, height of a rectangle. DataError if it is none."""
    try:
        return _REGION.validate_python(region)
    except ValidationError as error:
        reasons = "; ".join(each["msg"] for each in error.errors(include_url=False))
        raise DataError(
            f"{what} {region!r}: expected x, y, width, height in px, the last two positive ({reasons})."
        ) from error


@dataclass(frozen=True)
class RecordingReport:
    """What a recording holds. A frame is usable if its picture is whole and the telemetry has its row."""

    name: str
    telemetry: TelemetryReport
    frames: int
    usable_frames: int
    frames_without_row: int
    rows_without_frame: int
    truncated_frames: int
    """Files that hold no whole JPEG or PNG."""
    repeated_frames: int
    """Byte for byte the frame before."""
    examples: dict[str, list[str]]
    """At most ten times of each kind."""
    frame_bytes: int


def parse_recording_name(name: str) -> datetime:
    """The start of a drive from its folder's name.

    Raises:
        DataError: it is not `YYYY-MM-DD_HH-MM-SS` of a real moment.
    """
    if _NAME.fullmatch(name):
        with contextlib.suppress(ValueError):
            return datetime.fromisoformat(f"{name[:10]} {name[11:].replace('-', ':')}")
    raise DataError(
        f"Recording name {name!r}: expected the drive's start as YYYY-MM-DD_HH-MM-SS, such as 2024-05-31_08-15-00; "
        "rename the folder."
    )


def inspect_recording(folder: Path, most_unreadable: float = MOST_UNREADABLE) -> RecordingReport:
    """Validate a recording's folder. Frames that are cut, missing or without a row are counted, not refused.

    Args:
        most_unreadable: share of the telemetry's rows that may be unreadable, besides the recorder's own fault rows.

    Raises:
        DataError: no telemetry or wrong telemetry, or no frame that can be used.
    """
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: expected a recording with {TELEMETRY} and its frames.")
    recording = Recording(folder)
    table, telemetry = recording.telemetry(most_unreadable)
    files = recording.frames()
    rows = set(table["Time"])
    examples = {
        "frames_without_row": sorted(files.keys() - rows),
        "rows_without_frame": sorted(rows - files.keys()),
        "truncated_frames": sorted(time for time, path in files.items() if not is_whole(path)),
        "repeated_frames": repeated_frames(files),
    }
    truncated, loose = examples["truncated_frames"], len(examples["frames_without_row"])
    usable = len((files.keys() & rows) - set(truncated))
    if usable == 0:
        name = f" such as {next(iter(files.values())).name}" if files else ""
        raise DataError(
            f"{folder} has no usable frame: {len(files)} pictures{name}, {len(truncated)} of them not whole, "
            f"for {len(rows)} valid rows of {TELEMETRY}. Expected pictures named as the rows' Time beside it, such as "
            f"{frame_name(min(rows))}."
        )
    if loose > len(files) / 2 and len(examples["rows_without_frame"]) > len(rows) / 2:
        raise DataError(
            f"{folder}: {loose} of {len(files)} frames have the time of no row of {TELEMETRY}, and most rows have no "
            f"frame: frames and rows have two clocks, such as {examples['frames_without_row'][0]} and "
            f"{examples['rows_without_frame'][0]}. Name frames by the Time of their rows."
        )
    return RecordingReport(
        name=folder.name,
        telemetry=telemetry,
        frames=len(files),
        usable_frames=usable,
        **{kind: len(times) for kind, times in examples.items()},
        examples={kind: times[:EXAMPLES] for kind, times in examples.items()},
        frame_bytes=sum(path.stat().st_size for path in files.values()),
    )
