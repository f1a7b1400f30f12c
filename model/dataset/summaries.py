"""What a recording contributes to a data set, and which recordings hold the same drive."""

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
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
LEAST_SHARED = 12
"""Drives that share fewer of the hashes that both sketches cover are not compared."""
LEVEL_KMH, LEVELS_FROM = 5.0, 0.5
"""Speeds whose crossings are times that do not depend on when a log has its samples."""
CROSSINGS = 4
"""In a hash."""
SIMILAR_CROSSINGS = 0.45
"""Share from which two drives may be one. Of twelve simulated drives, those sampled at other moments or rates, rounded
to 1 km/h or cut share at least 0.54, and different ones at most 0.29."""


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
    crossings: list[int] = field(default_factory=list)
    """As `crossing_sketch`"""


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
        crossings=crossing_sketch(telemetry),
    )


def drive_sketch(telemetry: pd.DataFrame) -> list[int]:
    """The smallest hashes of the drive's runs of speeds and pedals, rounded to 1 km/h and 1 %: a bottom-k sketch.

    It does not depend on the clock, and little on the digits that a file has (Broder 1997, on resemblance).
    """
    driven = np.column_stack([telemetry["SPEED"], pressed(telemetry, 50), telemetry.get(PEDAL, telemetry["SPEED"])])
    values = np.rint(driven).astype(np.uint64)
    if len(values) < RUN_ROWS:
        return []
    return _smallest(
        np.lib.stride_tricks.sliding_window_view(values, RUN_ROWS, axis=0).reshape(len(values) - RUN_ROWS + 1, -1)
    )


def crossing_sketch(telemetry: pd.DataFrame) -> list[int]:
    """The smallest hashes of the speeds that the car passes, some at a time, with the whole seconds between them.

    Where the log has its samples, and how often, matters little.
    """
    t, speed = telemetry["t"].to_numpy() / 1000, telemetry["SPEED"].to_numpy(np.float64)
    at = np.floor((speed - LEVELS_FROM) / LEVEL_KMH)
    crossed = np.abs(np.diff(at)).astype(np.int64)
    row = np.repeat(np.arange(len(crossed)), crossed)
    rising = at[row + 1] > at[row]
    number = np.arange(len(row)) - np.repeat(np.cumsum(crossed) - crossed, crossed)  # of those within one row
    level = np.where(rising, at[row] + 1 + number, at[row] - number)
    share = (level * LEVEL_KMH + LEVELS_FROM - speed[row]) / (speed[row + 1] - speed[row])
    gaps = np.rint(np.diff(t[row] + share * (t[row + 1] - t[row])))
    passed = level * 2 + rising
    if len(passed) < CROSSINGS:
        return []
    runs = np.lib.stride_tricks.sliding_window_view
    values = np.column_stack([runs(passed, CROSSINGS), runs(gaps, CROSSINGS - 1)])
    return _smallest((values + 2**20).astype(np.uint64))


def _smallest(rows: npt.NDArray[np.uint64]) -> list[int]:
    """The smallest hashes of the rows of (N, M)."""
    hashes = np.zeros(len(rows), np.uint64)
    for column in rows.T:  # products wrap
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
    repeats: dict[str, str] = {}
    similar: dict[str, tuple[str, float]] = {}
    rows = _shares({name: summary.sketch for name, summary in summaries.items()})
    crossings = _shares({name: summary.crossings for name, summary in summaries.items()})
    for pair in sorted(rows.keys() | {pair for pair, share in crossings.items() if share >= SIMILAR_CROSSINGS}):
        first, second = pair
        share = rows.get(pair, 0.0)
        if first in repeats:
            continue
        if share >= same:
            repeats.setdefault(second, first)
        else:
            found = (first, round(max(share, crossings.get(pair, 0.0)), 2))
            similar[second] = max(similar.get(second, found), found, key=lambda s: s[1])
    return repeats, {name: each for name, each in similar.items() if not {name, each[0]} & {*repeats}}


def _shares(sketches: Mapping[str, list[int]]) -> dict[tuple[str, str], float]:
    """Of pairs that share enough hashes, the share of those that both sketches cover."""
    names: dict[int, list[str]] = {}
    for name in sorted(sketches):
        for each in sketches[name]:
            names.setdefault(each, []).append(name)
    counts = Counter(pair for having in names.values() for pair in itertools.combinations(having, 2))
    shares = {}
    for pair, count in counts.items():
        if count >= LEAST_SHARED:
            both = [sketches[name] for name in pair]
            covered = min(sketch[-1] if len(sketch) == SKETCH else 2**64 for sketch in both)
            shares[pair] = count / min(sum(each <= covered for each in sketch) for sketch in both)
    return shares
