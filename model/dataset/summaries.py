"""What a recording brings to a data set, whatever the others are, and which recordings hold the same drive."""

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.common.files import sha256
from model.dataset.assignment import RecordingStats
from model.dataset.windows import RecordingArrays, WindowConfig, join_recording
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
"""Marks in the time that two recordings share that tell whether they may be one drive."""


@dataclass(frozen=True)
class Summary:
    """What a recording's own files say."""

    reason: str = ""
    """Why it cannot be used; empty if it can."""
    poison: str = ""
    """What is implausible about it and would teach networks what is not so."""
    stats: RecordingStats | None = None
    """None where it cannot be used."""
    inputs: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    coast_threshold: float = 0.0
    first_ms: int = 0
    last_ms: int = 0
    marks: dict[int, int] = field(default_factory=dict)
    """Of some times, those of all recordings that have them, a sum of the row's telemetry."""
    foreseen: bool = True
    """Whether it says the same as long as the files stay as they are."""

    def may_repeat(self, other: "Summary") -> bool:
        """Whether both may hold one drive: rows tell for sure (`Rows.repeat`)."""
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
        poison = _poison(own, telemetry, report, arrays)
    except DataError as error:
        return Summary(str(error))
    except Exception as error:  # whatever is wrong with one, the others are used
        return Summary(f"{type(error).__name__}, not foreseen: {error}", foreseen=False)
    if not len(arrays.window_start):
        return Summary(f"no window of {window.length} frames without a gap and with known labels", poison)
    when = arrays.time_ms
    marked = np.flatnonzero(when // MARK_MS % MARK_EVERY == 0)
    return Summary(
        poison=poison,
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


def _poison(own: Recording, telemetry: pd.DataFrame, report: TelemetryReport, arrays: RecordingArrays) -> str:
    """What is implausible about a recording and would teach networks what is not so; empty if nothing.

    The annotations record what is implausible about the camera; frames are read only if it was annotated elsewhere.
    """
    found = implausible_drive(telemetry, report, arrays.coast_threshold)
    corner = BOX_VALUES.index("x1")
    box = arrays.detections[..., corner : corner + 4][arrays.detection_mask]
    found += implausible_detections(box, arrays.region[1])
    if CAMERA in own.details:
        found += camera_findings(own.details)
    else:
        found += implausible_camera(own.frames(), telemetry)
    return "; ".join(finding.text for finding in found if finding.blocks_training)


@dataclass(frozen=True)
class Rows:
    """What tells a drive from another. Two cars may record at the same time, but not the same."""

    time_ms: npt.NDArray[np.int64]
    """(F,)"""
    telemetry: npt.NDArray[np.float32]
    """(F,C)"""

    @classmethod
    def of(cls, own: Recording, window: WindowConfig) -> Self:
        arrays = join_recording(own, own.telemetry()[0], window)
        return cls(arrays.time_ms, arrays.telemetry)

    def repeat(self, other: "Rows") -> bool:
        _, mine, theirs = np.intersect1d(self.time_ms, other.time_ms, return_indices=True)
        if self.telemetry.shape[1] != other.telemetry.shape[1]:
            return False
        return len(mine) > 0 and float((self.telemetry[mine] == other.telemetry[theirs]).all(axis=1).mean()) > 0.5


def repeated(recordings: Path, found: Mapping[str, Summary], window: WindowConfig) -> dict[str, str]:
    """Recordings that hold a drive that one of an earlier name holds, each with that name.

    Only recordings whose times overlap, and whose marks do not tell them apart, are read.
    """
    rows = lru_cache(8)(lambda name: Rows.of(Recording(recordings / name), window))
    same: dict[str, list[str]] = {}
    running: list[str] = []
    for name in sorted(found, key=lambda name: found[name].first_ms):
        running = [other for other in running if found[other].last_ms >= found[name].first_ms]
        for other in running:
            if found[name].may_repeat(found[other]) and rows(name).repeat(rows(other)):
                same.setdefault(max(name, other), []).append(min(name, other))
        running.append(name)
    twice: dict[str, str] = {}
    for name in sorted(same):
        if others := sorted(set(same[name]) - twice.keys()):
            twice[name] = others[0]
    return twice
