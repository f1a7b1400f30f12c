"""What a recording contributes to a data set, and which recordings hold the same drive."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.assignment import RecordingStats
from model.dataset.windows import RecordingArrays, WindowConfig, build_recording, join_recording
from model.recording.folder import CONTENT, Recording
from model.recording.plausibility import (
    CAMERA,
    camera_findings,
    implausible_camera,
    implausible_detections,
    implausible_drive,
)
from model.recording.schema import BINARY_LABELS, BOX_VALUES
from model.recording.telemetry import TelemetryReport

MARK_MS, MARK_EVERY = 100, 151
"""A row is marked if its time in tenths of a second is a multiple of this: one in 75 s at 2 Hz."""
ENOUGH_MARKS = 4
"""Marks in the time that two recordings share from which on differing marks exclude the same drive."""


@dataclass(frozen=True)
class Summary:
    """What a recording's own files say."""

    reason: str = ""
    """Why it cannot be used; empty if it can."""
    blocks_training: str = ""
    """What is implausible about it and would teach networks something false."""
    stats: RecordingStats | None = None
    """None where it cannot be used."""
    inputs: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    coast_threshold: float = 0.0
    first_ms: int = 0
    last_ms: int = 0
    marks: dict[int, int] = field(default_factory=dict)
    """A checksum of the row's telemetry by its time, for some times, which are the same in all recordings."""
    is_repeatable: bool = True
    """Whether the files, if they stay as they are, give the same summary again."""

    def may_repeat(self, other: "Summary") -> bool:
        """Whether both may hold the same drive: `repeated` compares their rows."""
        first, last = max(self.first_ms, other.first_ms), min(self.last_ms, other.last_ms)
        mine, theirs = (
            {when: mark for when, mark in marks.items() if first <= when <= last} for marks in (self.marks, other.marks)
        )
        few = min(len(mine), len(theirs)) < ENOUGH_MARKS
        return first <= last and (few or bool(mine.items() & theirs.items()))


def summarise(own: Recording, window: WindowConfig) -> Summary:
    """Read a recording."""
    try:
        telemetry, report = own.telemetry()
        arrays = join_recording(own, telemetry, window)
        blocker = _blocks_training(own, telemetry, report, arrays)
    except DataError as error:
        return Summary(str(error))
    except Exception as error:  # the other recordings are used nevertheless
        return Summary(f"unexpected {type(error).__name__}: {error}", is_repeatable=False)
    if not len(arrays.window_start):
        return Summary(f"no window of {window.length} frames without a gap and with known labels", blocker)
    when = arrays.time_ms
    marked = np.flatnonzero(when // MARK_MS % MARK_EVERY == 0)
    return Summary(
        blocks_training=blocker,
        stats=_stats(own.folder, arrays, window),
        inputs=arrays.inputs,
        class_names=own.class_names(),
        coast_threshold=arrays.coast_threshold,
        first_ms=int(when.min()),
        last_ms=int(when.max()),
        marks={int(when[row]): zlib.crc32(arrays.telemetry[row].tobytes()) for row in marked},
    )


def _stats(recording: Path, arrays: RecordingArrays, config: WindowConfig) -> RecordingStats:
    positives = (arrays.window_labels(config.length) == 1).sum(axis=0)
    return RecordingStats(
        name=recording.name,
        frames=len(arrays.time_ms),
        windows=len(arrays.window_start),
        positives=dict(zip(BINARY_LABELS, positives.tolist(), strict=True)),
        content={name: sha256(recording / name) for name in CONTENT},
        region=arrays.region,
    )


def _blocks_training(own: Recording, telemetry: pd.DataFrame, report: TelemetryReport, arrays: RecordingArrays) -> str:
    """The findings about a recording that block training; empty if there are none.

    The annotations record those about the camera; frames are read only if it was annotated elsewhere.
    """
    corner = BOX_VALUES.index("x1")
    box = arrays.detections[..., corner : corner + 4][arrays.detection_mask]
    findings = [
        *implausible_drive(telemetry, report, arrays.coast_threshold),
        *implausible_detections(box, arrays.region[1]),
        *(camera_findings(own.details) if CAMERA in own.details else implausible_camera(own.frames(), telemetry)),
    ]
    return "; ".join(finding.text for finding in findings if finding.blocks_training)


def repeated(recordings: Path, summaries: Mapping[str, Summary], window: WindowConfig) -> dict[str, str]:
    """Recordings that hold the drive of another one with an earlier name, each with that name.

    Only recordings whose times overlap, and whose marks do not differ, are read.
    """
    arrays_of = lru_cache(8)(lambda name: build_recording(recordings / name, window))
    same: dict[str, list[str]] = {}
    overlapping: list[str] = []
    for name in sorted(summaries, key=lambda name: summaries[name].first_ms):
        own = summaries[name]
        overlapping = [other for other in overlapping if summaries[other].last_ms >= own.first_ms]
        for other in overlapping:
            if own.may_repeat(summaries[other]) and _is_same_drive(arrays_of(name), arrays_of(other)):
                same.setdefault(max(name, other), []).append(min(name, other))
        overlapping.append(name)
    repeats: dict[str, str] = {}
    for name in sorted(same):
        if others := sorted(set(same[name]) - repeats.keys()):
            repeats[name] = others[0]
    return repeats


def _is_same_drive(one: RecordingArrays, other: RecordingArrays) -> bool:
    """Whether most telemetry at the times of both is equal. Two cars may record at the same time, but not the same."""
    _, here, there = np.intersect1d(one.time_ms, other.time_ms, return_indices=True)
    if one.inputs != other.inputs or not len(here):
        return False
    return float((one.telemetry[here] == other.telemetry[there]).all(axis=1).mean()) > 0.5
