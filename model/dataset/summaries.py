"""What a recording contributes to a data set, and which recordings hold the same drive."""

import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from model.common.errors import DataError
from model.dataset.assignment import RecordingStats
from model.dataset.windows import RecordingArrays, Traits, WindowConfig, join_recording
from model.recording.folder import Recording
from model.recording.plausibility import (
    CAMERA,
    camera_findings,
    implausible_camera,
    implausible_detections,
    implausible_drive,
)
from model.recording.schema import BOX_VALUES, TASKS
from model.recording.telemetry import TelemetryReport

SAMPLED_ROWS = 64
_SCATTER = 2_654_435_761
"""Knuth's multiplier: the product's lower bits scatter times, so that recordings of one drive sample the same ones."""


@dataclass(frozen=True)
class Summary:
    """What a recording's own files say."""

    reason: str = ""
    """Why it cannot be used; empty if it can."""
    blocks_training: str = ""
    """What is implausible about it and would teach networks something false."""
    stats: RecordingStats | None = None
    """None where it cannot be used."""
    traits: Traits | None = None
    sample: dict[int, int] = field(default_factory=dict)
    """A checksum of the telemetry by time, ms, of rows that depend only on their time."""


def summarise(own: Recording, window: WindowConfig) -> Summary:
    """Read a recording."""
    try:
        telemetry, report = own.telemetry()
        arrays = join_recording(own, window, telemetry)
        blocker = _blocks_training(own, telemetry, report, arrays)
    except DataError as error:
        return Summary(str(error))
    if not len(arrays.window_start):
        return Summary(f"no window of {window.length} frames without a gap and with known labels", blocker)
    when = arrays.time_ms
    sampled = np.argsort(when // 100 * _SCATTER % 2**32, kind="stable")[:SAMPLED_ROWS]
    positives = (arrays.labels[arrays.window_start + window.length - 1] == 1).sum(axis=0)
    return Summary(
        blocks_training=blocker,
        stats=RecordingStats(
            name=own.name,
            frames=len(when),
            windows=len(arrays.window_start),
            positives=dict(zip(TASKS, positives.tolist(), strict=True)),
            content=own.digests(),
            region=arrays.region,
        ),
        traits=arrays.traits,
        sample={int(when[row]): zlib.crc32(arrays.telemetry[row].tobytes()) for row in sampled},
    )


def _blocks_training(own: Recording, telemetry: pd.DataFrame, report: TelemetryReport, arrays: RecordingArrays) -> str:
    """The findings about a recording that block training; empty if there are none.

    The annotations record those about the camera; frames are read only if it was annotated elsewhere.
    """
    corner = BOX_VALUES.index("x1")
    box = arrays.detections[..., corner : corner + 4][arrays.detection_mask]
    findings = [
        *implausible_drive(telemetry, report, arrays.traits.coast_threshold),
        *implausible_detections(box, arrays.region[1]),
        *(camera_findings(own.details) if CAMERA in own.details else implausible_camera(own.frames(), telemetry)),
    ]
    return "; ".join(finding.text for finding in findings if finding.blocks_training)


def repeated(summaries: Mapping[str, Summary]) -> dict[str, str]:
    """Recordings that hold the drive of another one with an earlier name, each with that name.

    Most of their telemetry at the same times is equal. Two cars may record at the same time, but not the same.
    """
    rows: dict[int, list[tuple[str, int]]] = {}
    for name in sorted(summaries):
        for when, checksum in summaries[name].sample.items():
            rows.setdefault(when, []).append((name, checksum))
    equal: dict[tuple[str, str], list[bool]] = {}
    for at_once in rows.values():
        for (first, one), (second, other) in itertools.combinations(at_once, 2):
            equal.setdefault((first, second), []).append(one == other)
    repeats: dict[str, str] = {}
    for (first, second), matches in sorted(equal.items()):
        if first not in repeats and sum(matches) > len(matches) / 2:
            repeats.setdefault(second, first)
    return repeats
