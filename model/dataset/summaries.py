"""What a recording contributes to a data set, and which recordings hold the same drive."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from model.common.errors import DataError
from model.dataset.assignment import RecordingStats
from model.dataset.windows import RecordingArrays, Traits, WindowConfig, join_recording
from model.recording.folder import Recording
from model.recording.labels import pressed
from model.recording.plausibility import (
    CAMERA,
    camera_findings,
    implausible_camera,
    implausible_detections,
    implausible_drive,
)
from model.recording.schema import BOX_VALUES, PEDAL, TASKS
from model.recording.telemetry import TelemetryReport

SKETCH = 64
"""Hashes of runs of rows that are kept of a drive, the smallest."""
RUN_ROWS = 8
LEAST_RUNS = 12
"""Drives that share fewer of the runs that both sketches cover are not compared."""


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
    sketch: list[int] = field(default_factory=list)
    """As `drive_sketch`"""


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
    positives = (arrays.labels[arrays.window_start + window.length - 1] == 1).sum(axis=0)
    return Summary(
        blocks_training=blocker,
        stats=RecordingStats(
            name=own.name,
            frames=len(arrays.time_ms),
            windows=len(arrays.window_start),
            positives=dict(zip(TASKS, positives.tolist(), strict=True)),
            content=own.digests(),
            region=arrays.region,
            drive=str(own.imported.get("drive", "")),
        ),
        traits=arrays.traits,
        sketch=drive_sketch(telemetry),
    )


def drive_sketch(telemetry: pd.DataFrame) -> list[int]:
    """The smallest hashes of the drive's runs of speeds and pedals, rounded to 1 km/h and 1 %: a bottom-k sketch.

    It does not depend on the clock, and little on the digits that a file has (Broder 1997, on resemblance).
    """
    driven = np.column_stack([telemetry["SPEED"], pressed(telemetry, 50), telemetry.get(PEDAL, telemetry["SPEED"])])
    values = np.rint(driven).astype(np.uint64)
    if len(values) < RUN_ROWS:
        return []
    runs = np.lib.stride_tricks.sliding_window_view(values, RUN_ROWS, axis=0).reshape(len(values) - RUN_ROWS + 1, -1)
    hashes = np.zeros(len(runs), np.uint64)
    for column in runs.T:  # products wrap
        hashes = (hashes ^ column) * np.uint64(0x9E3779B97F4A7C15)
        hashes ^= hashes >> np.uint64(29)
    return [int(each) for each in np.unique(hashes >> np.uint64(1))[:SKETCH]]


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


def repeated(summaries: Mapping[str, Summary], same: float) -> tuple[dict[str, str], dict[str, tuple[str, float]]]:
    """Recordings that hold the drive of another one with an earlier name, or a part of it, each with that name; and
    those that are similar to another one, with the share of what both hold.

    Their clocks and the digits of their numbers may differ.

    Args:
        same: share from which two drives are one.
    """
    names: dict[int, list[str]] = {}
    for name in sorted(summaries):
        for each in summaries[name].sketch:
            names.setdefault(each, []).append(name)
    shared = Counter(pair for having in names.values() for pair in itertools.combinations(having, 2))
    repeats: dict[str, str] = {}
    similar: dict[str, tuple[str, float]] = {}
    for (first, second), count in sorted(shared.items()):
        sketches = summaries[first].sketch, summaries[second].sketch
        covered = min(sketch[-1] if len(sketch) == SKETCH else 2**64 for sketch in sketches)
        runs = min(sum(each <= covered for each in sketch) for sketch in sketches)
        if first in repeats or count < LEAST_RUNS:
            continue
        if count >= same * runs:
            repeats.setdefault(second, first)
        else:
            similar[second] = max(
                similar.get(second, (first, 0.0)), (first, round(count / runs, 2)), key=lambda s: s[1]
            )
    return repeats, {name: each for name, each in similar.items() if not {name, each[0]} & {*repeats}}
