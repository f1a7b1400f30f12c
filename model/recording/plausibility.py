"""Drives that cannot be as they were recorded: sensors that hang, pedals that never rest, cameras that see nothing.

Each finding tells numbers and rows. One that `poisons` would teach networks what is not so; the others deserve a look.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pandas as pd

from model.recording.folder import parse_recording_name
from model.recording.frame_files import is_whole
from model.recording.labels import LabelConfig
from model.recording.schema import CHANNELS, GEARS
from model.recording.telemetry import PEDAL, TelemetryReport
from model.recording.times import MAX_STEP_MS, SLOT, STEP_MS

WINDOW_ROWS = 20
REST_SHARE, REST_BAND = 0.05, 0.5
"""A pedal rests where so many rows are within so many % of its lowest position."""
SATURATED_SHARE = 0.2
FROZEN_S = 300.0
CONTRADICTED_S, CONTRADICTED_BY = 60.0, 0.3
"""A value that stays so long is frozen too if meanwhile the speed, or for it the engine's, changes by such a share."""
LONG_S = 300.0
MINUTE_S = 60.0
MOVING_KMH = 10.0
BRAKE_SHARE = 0.9
HARD_KMH_S, HARD_ROWS = 9.0, 4
"""No car slows so fast (2.5 m/s2), and for so many rows, without its brake."""
RISING_KMH_S = 1.0
MOST_OUT_OF_RANGE = 0.05
GUESSED_SHARE = 0.5
FAR_FROM_NAME_S = 24 * 3600.0
LONGEST_GAP_S = 3600.0
FRAMES_LOOKED_AT = 24
BLACK_LEVEL, BLACK_SPREAD = 12.0, 6.0
"""Grey levels of 255."""
STILL_DIFFERENCE = 0.5
REPEATED_SHARE = 0.5
HUNG_SHARE = 0.05
DETECTIONS_FOR_A_PLACE = 50
CAMERA = "camera"
"""Of the details of annotations: what `implausible_camera` found in the frames."""
IN_THE_SKY = 0.99


@dataclass(frozen=True)
class Finding:
    """What is implausible about a recording."""

    kind: str
    text: str
    poisons: bool


def implausible_drive(
    telemetry: pd.DataFrame, report: TelemetryReport, coast_threshold: float = LabelConfig().coast_threshold
) -> list[Finding]:
    """What is implausible in the rows of `read_telemetry`. `coast_threshold`: % as in `LabelConfig`."""
    minutes = len(telemetry) * STEP_MS / 60_000
    found = [
        *_pedal(telemetry, minutes, coast_threshold),
        *_brake(telemetry, minutes),
        *_stands(telemetry, coast_threshold),
    ]
    if report.out_of_range > max(1, MOST_OUT_OF_RANGE * report.rows):
        example = report.out_of_range_example
        text = f"{report.out_of_range} of {report.rows} rows are dropped as {example}: is its scale another one"
        advice = " (option pedal_range of recording)?" if example.startswith(PEDAL) else "?"
        found.append(Finding("out_of_range", text + advice, True))
    for name in (name for name, channel in CHANNELS.items() if channel.kind == "number" and name in telemetry):
        found += [*_frozen(telemetry, name), *_saturated(telemetry, name)]
    if report.empty_columns:
        found.append(
            Finding("empty", f"{', '.join(report.empty_columns)} has no value in any row: it is no input", False)
        )
    if report.gear_inferred > GUESSED_SHARE * len(telemetry):
        text = f"the gear of {report.gear_inferred} of {len(telemetry)} rows is none of 0 to {GEARS - 1}"
        found.append(Finding("gear", f"{text}: it follows from speed and engine speed by the ratios of one car", False))
    if report.backwards:
        found.append(Finding("clock", f"the clock was set back {report.backwards} times", False))
    if report.longest_gap_s > LONGEST_GAP_S:
        found.append(Finding("clock", f"the clock jumps {report.longest_gap_s:,.0f} s ahead", False))
    if len(telemetry) < WINDOW_ROWS:
        found.append(Finding("short", f"{len(telemetry)} rows are less than a window of {WINDOW_ROWS}", False))
    return found


def implausible_start(name: str, telemetry: pd.DataFrame) -> list[Finding]:
    """Whether a recording began when its name says: a recorder without a clock of its own begins in 1970, say."""
    named, first = parse_recording_name(name), datetime.fromtimestamp(int(telemetry["t"].iloc[0]) / 1000, UTC)
    if abs((first - named.replace(tzinfo=UTC)).total_seconds()) <= FAR_FROM_NAME_S:
        return []
    return [Finding("clock", f"its name says {named:%Y-%m-%d %H:%M}, its first row {first:%Y-%m-%d %H:%M}", False)]


def implausible_camera(
    frames: Mapping[str, Path], telemetry: pd.DataFrame, repeated: Sequence[str] = ()
) -> list[Finding]:
    """What is implausible in a camera's frames, by their time: of some, evenly picked, the pixels are looked at."""
    moving = set(telemetry["Time"][telemetry["SPEED"] > MOVING_KMH])
    seen = [time for time in frames if time in moving]
    if not seen:
        return []
    picked = [seen[i] for i in np.unique(np.linspace(0, len(seen) - 1, FRAMES_LOOKED_AT).astype(int))]
    whole = [time for time in picked if is_whole(frames[time])]
    read = [(time, cv2.imread(str(frames[time]), cv2.IMREAD_REDUCED_GRAYSCALE_8)) for time in whole]
    pictures = [(time, image.astype(np.float32)) for time, image in read if image is not None]
    black = [time for time, image in pictures if image.mean() < BLACK_LEVEL and image.std() < BLACK_SPREAD]
    found = []
    if black and len(black) > len(pictures) / 2:
        found.append(
            Finding("black", f"{len(black)} of {len(pictures)} frames looked at are black, as {black[0]}", True)
        )
    pairs = [(a, b) for (_, a), (_, b) in pairwise(pictures) if a.shape == b.shape]
    still = sum(float(np.abs(a - b).mean()) < STILL_DIFFERENCE for a, b in pairs)
    if not found and pairs and still > len(pairs) / 2:
        text = f"{still} of {len(pairs)} frames looked at are the one looked at before, though the car moves"
        found.append(Finding("still", text, True))
    hung = [time for time in repeated if time in moving]
    if len(hung) > HUNG_SHARE * len(seen) and not found:
        text = f"{len(hung)} of {len(seen)} frames are the one before, though the car moves, the first {hung[0]}"
        found.append(Finding("still", text, len(hung) > REPEATED_SHARE * len(seen)))
    return found


def implausible_detections(box: npt.NDArray[np.float32], region_height: int) -> list[Finding]:
    """Whether the vehicles of boxes (M,4) are in the sky: a camera upside down, or a wrong region of interest.

    Far ones are near the horizon, which may be high. It is the camera if those that look larger, as they are nearer,
    do not reach further down, but further up.
    """
    bottom, height = box[:, 3], box[:, 3] - box[:, 1]
    high = int((bottom < region_height / 2).sum())
    if len(bottom) < DETECTIONS_FOR_A_PLACE or high < IN_THE_SKY * len(bottom):
        return []
    text = (
        f"{high} of {len(bottom)} vehicles lie in the upper half of the region of interest: is the camera upside down, "
        "or the region not its own?"
    )
    if height.max() < 2 * height.min():
        return [Finding("upside_down", text, False)]
    up, down = np.polyfit(height, box[:, [1, 3]], 1)[0]
    return [Finding("upside_down", text, bool(up < -0.5 and down < 0.25))]


def _pedal(telemetry: pd.DataFrame, minutes: float, coast_threshold: float) -> list[Finding]:
    pedal = telemetry[PEDAL].to_numpy()
    lowest = float(pedal.min())
    if pedal.max() < coast_threshold and minutes * 60 >= MINUTE_S and (rises := _rises(telemetry)):
        text = (
            f"the accelerator is never above {pedal.max():.3g} % in {minutes:.1f} minutes, though the speed rises in "
            f"{rises} rows: was the cruise control on, or is the scale another one (option pedal_range of recording)?"
        )
        return [Finding("pedal_never_pressed", text, True)]
    if lowest < coast_threshold:
        return []
    rests = float((pedal <= lowest + REST_BAND).mean())
    if rests < REST_SHARE and minutes * 60 < LONG_S:
        return []
    text = (
        f"the lowest accelerator position is {lowest:.1f} %, never below {coast_threshold:g} % in {minutes:.1f} "
        f"minutes: no row coasts. Positions reach {pedal.max():.1f} %; rescale them with the option pedal_range of "
        "recording, or set coast_threshold of the labels"
    )
    return [Finding("pedal_never_rests", text, rests >= REST_SHARE)]


def _brake(telemetry: pd.DataFrame, minutes: float) -> list[Finding]:
    brake = telemetry["BRAKE_SIGNAL"].to_numpy(bool)[telemetry["SPEED"].to_numpy() > MOVING_KMH]
    if len(brake) < WINDOW_ROWS:
        return []
    if brake.mean() > BRAKE_SHARE:
        text = f"the brake is on in {brake.mean():.0%} of the {len(brake)} rows in which the car moves"
        return [Finding("brake_always_on", text, True)]
    if brake.any():
        return []
    slowed = _change(telemetry) <= -HARD_KMH_S
    if slowed.sum() >= HARD_ROWS:
        first = telemetry["Time"].iloc[int(slowed.argmax())]
        text = f"the brake is never on, though the car slows hard in {slowed.sum()} rows, the first {first}"
        return [Finding("brake_never_on", text, True)]
    if minutes * 60 >= LONG_S:
        return [Finding("brake_never_on", f"the brake is never on in {minutes:.1f} minutes", False)]
    return []


def _change(telemetry: pd.DataFrame) -> npt.NDArray[np.float64]:
    """(N,) how much faster the car is a second, two rows, later, km/h; 0 where a gap begins or the drive ends."""
    slots, speed = telemetry[SLOT].to_numpy(), telemetry["SPEED"].to_numpy()
    change = np.zeros(len(speed))
    follows = (slots[2:] > slots[:-2]) & (slots[2:] - slots[:-2] <= 2 * MAX_STEP_MS)
    change[:-2] = np.where(follows, speed[2:] - speed[:-2], 0.0)
    return change


def _rises(telemetry: pd.DataFrame) -> int:
    """Rows in which the speed rises as it does not by itself."""
    return int((_change(telemetry) > RISING_KMH_S).sum())


def _stands(telemetry: pd.DataFrame, coast_threshold: float) -> list[Finding]:
    """Whether the speed says that the car stands throughout, and the accelerator that it does not."""
    fastest, seconds = telemetry["SPEED"].max(), len(telemetry) * STEP_MS / 1000
    pressed = int((telemetry[PEDAL] >= coast_threshold).sum())
    if seconds < MINUTE_S or fastest > MOVING_KMH or pressed < len(telemetry) / 4:
        return []
    text = f"SPEED is never above {fastest:g} km/h in {seconds:.0f} s, though the pedal is pressed in {pressed} rows"
    return [Finding("frozen", text, True)]


def _frozen(telemetry: pd.DataFrame, name: str) -> list[Finding]:
    """Whether a channel holds one value for minutes while the car moves, and for one while others tell otherwise.

    The accelerator, the load and the braking force may be 0 for long.
    """
    values = telemetry[name].to_numpy()
    still = (np.diff(values) == 0) & (np.diff(telemetry["t"].to_numpy()) > 0)
    still &= (values[1:] != 0) | (name == "RPM")
    still &= telemetry["SPEED"].to_numpy()[1:] > MOVING_KMH
    first, length = _longest_run(still)
    seconds = length * STEP_MS / 1000
    other = telemetry.get("RPM" if name == "SPEED" else "SPEED", telemetry["SPEED"]).to_numpy()[first : first + length]
    moved = seconds >= CONTRADICTED_S and other.max() - other.min() > CONTRADICTED_BY * other.max()
    if seconds < FROZEN_S and not moved:
        return []
    start = telemetry["Time"].iloc[first]
    text = f"{name} stays at {values[first]:g} for {seconds:.0f} s from {start} on ({length + 1} rows)"
    return [Finding("frozen", text, True)]


def _saturated(telemetry: pd.DataFrame, name: str) -> list[Finding]:
    scaling = CHANNELS[name].scaling
    values = telemetry[name].to_numpy()
    if scaling is None or len(values) < WINDOW_ROWS or values.max() < scaling[1]:
        return []
    share = float((values == values.max()).mean())
    if share < SATURATED_SHARE:
        return []
    return [Finding("saturated", f"{name} is at its highest, {values.max():g}, in {share:.0%} of the rows", True)]


def _longest_run(yes: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """First index and length of the longest run of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], yes, [False]]).astype(np.int8)))
    starts, ends = edges[::2], edges[1::2]
    if not len(starts):
        return 0, 0
    longest = int((ends - starts).argmax())
    return int(starts[longest]), int(ends[longest] - starts[longest])
