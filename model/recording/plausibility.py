"""Drives that cannot be as recorded: sensors that hang, pedals that never rest, cameras that see nothing.

Each finding names numbers and rows. One that `blocks_training` would teach networks something false; the others deserve
a look.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from model.recording.folder import parse_recording_name
from model.recording.frame_files import is_whole
from model.recording.gears import fitting_gear
from model.recording.labels import INFERRED, LabelConfig, not_driven, pressed, row_reasons, speed_change, switch
from model.recording.schema import BRAKE, CHANNELS, GEARS, PEDAL, STEP_MS, WINDOW_FRAMES
from model.recording.telemetry import TelemetryReport

REST_SHARE, REST_BAND = 0.05, 0.5
"""A pedal rests where at least this share of rows is within this many % of its lowest position."""
SATURATED_SHARE = 0.2
CORNER = 0.02
"""Of a channel's range: what never leaves such a part may have another unit."""
FROZEN_S = 300.0
CONTRADICTED_S, CONTRADICTED_BY = 60.0, 0.3
"""A value that stays this long is frozen too if the speed (for it, the engine's) changes by this share meanwhile."""
LONG_S = 300.0
MINUTE_S = 60.0
MOVING_KMH = 10.0
BRAKE_SHARE = 0.9
INVERTED_SHARE = 0.25
"""Of the rows with the brake on, in which the car is accelerated."""
HARD_KMH_S, HARD_ROWS = 9.0, 4
"""No car slows this fast (2.5 m/s2), in this many rows, without its brake."""
RISING_KMH_S = 1.0
MOST_OUT_OF_RANGE = 0.05
GUESSED_SHARE = 0.5
SPEED_UNITS = {"mph": 1.609344, "m/s": 3.6}
"""Factors to km/h."""
GEARS_FOR_A_UNIT = 3
FAR_FROM_NAME_S = 24 * 3600.0
LONGEST_GAP_S = 3600.0
SAMPLED_FRAMES = 24
BLACK_LEVEL, BLACK_SPREAD = 12.0, 6.0
"""Grey levels of 255."""
STILL_DIFFERENCE = 0.5
REPEATED_SHARE = 0.5
HUNG_SHARE = 0.05
LEAST_DETECTIONS = 50
IN_THE_SKY = 0.99
CAMERA = "camera"
"""Key in the details of annotations: the findings of `implausible_camera`."""


@dataclass(frozen=True)
class Finding:
    """What is implausible about a recording."""

    kind: str
    text: str
    blocks_training: bool = True


def camera_findings(details: Mapping[str, Any]) -> list[Finding]:
    """The findings in the details of annotations, where earlier versions call `blocks_training` poisons."""
    return [
        Finding(each["kind"], each["text"], each.get("blocks_training", each.get("poisons")))
        for each in details[CAMERA]
    ]


def implausible_drive(
    telemetry: pd.DataFrame, report: TelemetryReport, coast_threshold: float = LabelConfig().coast_threshold
) -> list[Finding]:
    """What is implausible in the rows of `read_telemetry`. `coast_threshold`: % as in `LabelConfig`."""
    numeric = [name for name, channel in CHANNELS.items() if channel.kind == "number" and name in telemetry]
    reasons = not_driven(telemetry, coast_threshold)
    driven = ~np.any([rows for reason, rows in reasons.items() if reason != INFERRED], axis=0)
    rules = [
        _pedal(telemetry, driven, coast_threshold) if PEDAL in telemetry and driven.any() else (),
        _brake(telemetry, driven, coast_threshold, report.drivetrain == "electric"),
        _standing(telemetry, coast_threshold),
        _out_of_range(report),
        _speed_unit(telemetry),
        *(_frozen(telemetry, name) for name in numeric),
        *(_saturated(telemetry, name) for name in numeric),
        _remarks(telemetry, report, coast_threshold),
    ]
    return [finding for rule in rules for finding in rule]


def _out_of_range(report: TelemetryReport) -> Iterator[Finding]:
    if report.out_of_range > max(1, MOST_OUT_OF_RANGE * report.rows):
        example = report.out_of_range_example
        text = f"{report.out_of_range} of {report.rows} rows are dropped as {example}: is its scale another one"
        advice = " (option pedal_range of recording)?" if example.startswith(PEDAL) else "?"
        yield Finding("out_of_range", text + advice)


def _remarks(telemetry: pd.DataFrame, report: TelemetryReport, coast_threshold: float) -> Iterator[Finding]:
    """What does not block training."""
    remarks = [("reading", text) for text in report.remarks]
    if report.empty_columns:
        remarks.append(("empty", f"{', '.join(report.empty_columns)} says nothing in any row: it is no input"))
    if report.gear_inferred > GUESSED_SHARE * len(telemetry):
        text = f"the gear of {report.gear_inferred} of {len(telemetry)} rows is none of 0 to {GEARS - 1}"
        remarks.append(("gear", f"{text}: it follows from speed and engine speed by the ratios of one car"))
    if rows := row_reasons(telemetry, coast_threshold).get(INFERRED):  # signals that say so leave no doubt
        remarks.append(("assistance", f"{rows}: {INFERRED}; labels there are unknown, and no window ends there"))
    if report.backwards:
        remarks.append(("clock", f"the clock was set back {report.backwards} times"))
    if report.longest_gap_s > LONGEST_GAP_S:
        remarks.append(("clock", f"the clock jumps {report.longest_gap_s:,.0f} s ahead"))
    if len(telemetry) < WINDOW_FRAMES:
        remarks.append(("short", f"{len(telemetry)} rows are less than a window of {WINDOW_FRAMES}"))
    yield from (Finding(kind, text, blocks_training=False) for kind, text in remarks)


def implausible_start(name: str, telemetry: pd.DataFrame) -> list[Finding]:
    """Whether a recording began at another time than its name says: a recorder without a clock begins in 1970, say."""
    named, first = parse_recording_name(name), datetime.fromtimestamp(int(telemetry["t"].iloc[0]) / 1000, UTC)
    if abs((first - named.replace(tzinfo=UTC)).total_seconds()) <= FAR_FROM_NAME_S:
        return []
    return [Finding("clock", f"its name says {named:%Y-%m-%d %H:%M}, its first row {first:%Y-%m-%d %H:%M}", False)]


def implausible_camera(
    frames: Mapping[str, Path], telemetry: pd.DataFrame, repeated: Sequence[str] = ()
) -> list[Finding]:
    """What is implausible in a camera's frames, by their time. Reads the pixels of some, evenly picked."""
    moving = set(telemetry["Time"][telemetry["SPEED"] > MOVING_KMH])
    seen = [time for time in frames if time in moving]
    if not seen:
        return []
    picked = [seen[i] for i in np.unique(np.linspace(0, len(seen) - 1, SAMPLED_FRAMES).astype(int))]
    whole = [time for time in picked if is_whole(frames[time])]
    read = [(time, cv2.imread(str(frames[time]), cv2.IMREAD_REDUCED_GRAYSCALE_8)) for time in whole]
    pictures = [(time, image.astype(np.float32)) for time, image in read if image is not None]
    black = [time for time, image in pictures if image.mean() < BLACK_LEVEL and image.std() < BLACK_SPREAD]
    if len(black) > len(pictures) / 2:
        return [Finding("black", f"{len(black)} of {len(pictures)} sampled frames are black, such as {black[0]}")]
    pairs = [(a, b) for (_, a), (_, b) in pairwise(pictures) if a.shape == b.shape]
    still = sum(float(np.abs(a - b).mean()) < STILL_DIFFERENCE for a, b in pairs)
    if still > len(pairs) / 2:
        text = f"{still} of {len(pairs)} sampled frames equal the one before, though the car moves"
        return [Finding("still", text)]
    hung = [time for time in repeated if time in moving]
    if len(hung) > HUNG_SHARE * len(seen):
        text = f"{len(hung)} of {len(seen)} frames are the one before, though the car moves, the first {hung[0]}"
        return [Finding("still", text, len(hung) > REPEATED_SHARE * len(seen))]
    return []


def implausible_detections(box: npt.NDArray[np.float32], region_height: int) -> list[Finding]:
    """Whether the vehicles of boxes (M,4) are in the sky: a camera upside down, or a wrong region of interest.

    Far ones are near the horizon, which may be high. It is the camera if those that look larger, as they are nearer,
    do not reach further down, but further up.
    """
    bottom, height = box[:, 3], box[:, 3] - box[:, 1]
    high = int((bottom < region_height / 2).sum())
    if len(bottom) < LEAST_DETECTIONS or high < IN_THE_SKY * len(bottom):
        return []
    text = (
        f"{high} of {len(bottom)} vehicles lie in the upper half of the region of interest: is the camera upside down, "
        "or the region not its own?"
    )
    if height.max() < 2 * height.min():
        return [Finding("upside_down", text, False)]
    up, down = np.polyfit(height, box[:, [1, 3]], 1)[0]
    return [Finding("upside_down", text, bool(up < -0.5 and down < 0.25))]


def _pedal(telemetry: pd.DataFrame, driven: npt.NDArray[np.bool_], coast_threshold: float) -> Iterator[Finding]:
    pedal, seconds = telemetry[PEDAL].to_numpy()[driven], driven.sum() * STEP_MS / 1000
    lowest, highest = float(pedal.min()), float(pedal.max())
    rises = int((speed_change(telemetry)[driven] > RISING_KMH_S).sum())
    rests = float((pedal <= lowest + REST_BAND).mean())
    if highest < coast_threshold and seconds >= MINUTE_S and rises:
        text = (
            f"the accelerator is never above {highest:.3g} % in {seconds / 60:.1f} minutes, though the speed rises in "
            f"{rises} rows: was the cruise control on, or is the scale another one (option pedal_range of recording)?"
        )
        yield Finding("pedal_never_pressed", text)
    elif lowest >= coast_threshold and (rests >= REST_SHARE or seconds >= LONG_S):
        text = (
            f"the lowest accelerator position is {lowest:.1f} %, never below {coast_threshold:g} % in "
            f"{seconds / 60:.1f} minutes: no row coasts. Positions reach {highest:.1f} %; rescale them with the option "
            "pedal_range of recording, or set coast_threshold of the labels"
        )
        yield Finding("pedal_never_rests", text, rests >= REST_SHARE)


def _brake(
    telemetry: pd.DataFrame, driven: npt.NDArray[np.bool_], coast_threshold: float, regenerates: bool
) -> Iterator[Finding]:
    """`regenerates`: the car slows hard without its brake."""
    known = driven & (switch(telemetry, BRAKE) >= 0)
    moving = known & (telemetry["SPEED"].to_numpy() > MOVING_KMH)
    brake, change = switch(telemetry, BRAKE) == 1, speed_change(telemetry)
    pushed = known & brake & (pressed(telemetry, coast_threshold) == 1) & (change > RISING_KMH_S / 2)
    slowed, seconds = known & (change <= -HARD_KMH_S), known.sum() * STEP_MS / 1000
    if moving.sum() < WINDOW_FRAMES:
        return
    if (share := brake[moving].mean()) > BRAKE_SHARE:
        text = f"the brake is on in {share:.0%} of the {moving.sum()} rows in which the car moves"
        yield Finding("brake_always_on", text)
    elif pushed.sum() > INVERTED_SHARE * brake.sum():
        first = telemetry["Time"].iloc[int(pushed.argmax())]
        text = (
            f"in {pushed.sum()} of the {brake.sum()} rows with the brake on, the pedal is pressed and the car gains "
            f"speed, the first {first}: is BRAKE_SIGNAL inverted (true_values and false_values of recording)?"
        )
        yield Finding("brake_inverted", text)
    elif not brake[moving].any() and slowed.sum() >= HARD_ROWS and not regenerates:
        first = telemetry["Time"].iloc[int(slowed.argmax())]
        text = f"the brake is never on, though the car slows hard in {slowed.sum()} rows, the first {first}"
        yield Finding("brake_never_on", text)
    elif not brake[moving].any() and seconds >= LONG_S:
        yield Finding("brake_never_on", f"the brake is never on in {seconds / 60:.1f} minutes", blocks_training=False)


def _standing(telemetry: pd.DataFrame, coast_threshold: float) -> Iterator[Finding]:
    """Whether the speed says that the car stands throughout, and the accelerator that it does not."""
    fastest, seconds = telemetry["SPEED"].max(), len(telemetry) * STEP_MS / 1000
    rows = int((pressed(telemetry, coast_threshold) == 1).sum())
    if seconds >= MINUTE_S and fastest <= MOVING_KMH and rows >= len(telemetry) / 4:
        text = f"SPEED is never above {fastest:g} km/h in {seconds:.0f} s, though the pedal is pressed in {rows} rows"
        yield Finding("frozen", text)


def _speed_unit(telemetry: pd.DataFrame) -> Iterator[Finding]:
    """Whether speed and engine speed give the recorded gears only if the speed has another unit."""
    if not {"RPM", "GEAR"} <= {*telemetry.columns}:
        return
    driven = telemetry[(telemetry["GEAR"] > 0) & (telemetry["RPM"] > 0)]
    speed, rpm, gear = (driven[name].to_numpy(float) for name in ("SPEED", "RPM", "GEAR"))
    if len(driven) < WINDOW_FRAMES or len(np.unique(gear)) < GEARS_FOR_A_UNIT:
        return
    fitting = {
        factor: float((fitting_gear(speed * factor, rpm) == gear).mean()) for factor in (1, *SPEED_UNITS.values())
    }
    for unit, factor in SPEED_UNITS.items():
        if fitting[factor] > GUESSED_SHARE > fitting[1]:
            text = (
                f"SPEED, RPM and GEAR fit in {fitting[factor]:.0%} of the rows if the speed is in {unit}, in "
                f"{fitting[1]:.0%} if it is in km/h: declare factors {json.dumps({'SPEED': factor})} in reading.json"
            )
            yield Finding("unit", text)


def _frozen(telemetry: pd.DataFrame, name: str) -> Iterator[Finding]:
    """Whether a channel holds one value for minutes while the car moves, or for one minute while others change.

    All may be 0 for long, the engine speed in hybrids.
    """
    values, speed = telemetry[name].to_numpy(), telemetry["SPEED"]
    still = (np.diff(values) == 0) & (np.diff(telemetry["t"].to_numpy()) > 0)
    still &= (values[1:] != 0) & (speed.to_numpy()[1:] > MOVING_KMH)
    first, length = _longest_run(still)
    seconds = length * STEP_MS / 1000
    other = telemetry.get("RPM" if name == "SPEED" else "SPEED", speed).to_numpy()[first : first + length]
    moved = seconds >= CONTRADICTED_S and other.max() - other.min() > CONTRADICTED_BY * other.max()
    if seconds >= FROZEN_S or moved:
        start = telemetry["Time"].iloc[first]
        text = f"{name} stays at {values[first]:g} for {seconds:.0f} s from {start} on ({length + 1} rows)"
        yield Finding("frozen", text)


def _saturated(telemetry: pd.DataFrame, name: str) -> Iterator[Finding]:
    """Whether a channel is often at its highest, as a truck's accelerator is, or never leaves a corner of its range."""
    scaling, values = CHANNELS[name].scaling, telemetry[name].to_numpy()
    if scaling is None or len(values) < WINDOW_FRAMES:
        return
    lowest, highest = values.min(), values.max()
    share = float((values == highest).mean())
    if highest >= scaling[1] and share >= SATURATED_SHARE:
        text = f"{name} is at its highest, {highest:g}, in {share:.0%} of the rows"
        yield Finding("saturated", text, blocks_training=False)
    if lowest < highest < scaling[0] + CORNER * (scaling[1] - scaling[0]):
        text = f"{name} only goes from {lowest:g} to {highest:g} {CHANNELS[name].unit}: is its unit another one"
        yield Finding("corner", f"{text} (factors in reading.json)?", blocks_training=False)


def _longest_run(yes: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First index and length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], yes, [False]]).astype(np.int8)))
    lengths = edges[1::2] - edges[::2]
    if not len(lengths):
        return 0, 0
    return int(edges[::2][lengths.argmax()]), int(lengths.max())
