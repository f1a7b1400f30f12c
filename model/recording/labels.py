"""`future_labels.csv`: what the driver will do one to five seconds from each row, looked up by time."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from model.common.config import Config
from model.common.errors import DataError
from model.common.files import atomic_path, write_json
from model.recording.schema import BRAKE, HORIZONS_S, LABEL_COLUMNS, LABELS, PEDAL, PRESSED, STATES, TASKS, TIME
from model.recording.tables import read_object, read_table
from model.recording.times import MAX_STEP_MS, SLOT, nearest_rows, separated_times


class LabelConfig(Config):
    """How the future is looked up."""

    coast_threshold: float = Field(7.5, gt=0, le=100, description="Accelerator position (%) below which the car coasts")
    tolerance_s: float = Field(
        0.3, gt=0, lt=1, description="Largest distance (s) of a row from t + h; without one, the label is unknown"
    )
    slow_threshold: float = Field(
        1.0,
        gt=0,
        le=10,
        description="Deceleration (m/s2), averaged over one second, at and above which the car slows (slow_1s to "
        "slow_5s)",
    )


ASSISTED_KMH, ASSISTED_LOAD, ASSISTED_ROWS = 20.0, 20.0, 10
"""Faster than a car creeps, km/h; more load than an engine has without fuel, %; five seconds."""
HELD_KMH_S, REST_BAND = 0.5, 0.5
"""A speed that falls no faster is held; a pedal within as many % of its lowest position rests."""
BRAKE_SOURCE = "brake_labels"
"""Key of the `brake_source` in that file."""
DERIVED_BRAKE = "derived_brake"
"""The column of `derived_brake` in a recording's telemetry."""
BRAKED_KMH_S = 10.8
"""No car slows this fast (3 m/s2) by its engine, a slope and the wind alone."""
INFERRED = "driver assistance inferred from a speed that is held"
_DEFAULT = LabelConfig()
CONFIG_SUFFIX = ".json"
"""Of the file beside the labels that holds their config."""


def future_labels(telemetry: pd.DataFrame, config: LabelConfig = _DEFAULT) -> pd.DataFrame:
    """Labels of each valid row of `read_telemetry`'s table.

    A label is looked up in the row nearest to t + h, the earlier of two, if it is at most `tolerance_s` away.
    Otherwise it is unknown: <NA>, never False. So it is past the end, in a gap, where `not_driven` says that the driver
    does not drive, now or then, and where the source does not say what the driver does, now or then.

    Returns:
        `LABEL_COLUMNS` and `SLOW_LABELS`; numbers are floats, NaN where unknown, the rest nullable booleans.
    """
    states, reasons = current_state(telemetry, config), not_driven(telemetry, config.coast_threshold)
    here = np.any([rows for reason, rows in reasons.items() if reason != INFERRED], axis=0)
    there = np.any(list(reasons.values()), axis=0)
    t, tolerance = separated_times(telemetry), round(config.tolerance_s * 1000)
    future = {h: future_rows(t, h * 1000, tolerance) for h in HORIZONS_S}
    known = {h: near & ~here & ~there[rows] for h, (rows, near) in future.items()}
    columns: dict[str, object] = {TIME: telemetry[TIME], **dict.fromkeys(LABEL_COLUMNS[1:])}
    for state, now in zip(STATES, states.T, strict=True):
        for h, (rows, _) in future.items():
            columns[f"{state}_{h}s"] = pd.arrays.BooleanArray(
                now[rows] == 1, ~(known[h] & (now >= 0) & (now[rows] >= 0))
            )
    numbers = {"brake_force": _number(telemetry, "BRAKE_FORCE").clip(min=0), "acc_pos": _number(telemetry, PEDAL)}
    for label in (label for label in LABELS if not label.binary):
        h, values = label.horizon_s, numbers[label.name.removesuffix(f"_{label.horizon_s}s")]
        columns[label.name] = np.where(known[h], values[future[h][0]], np.nan)
    return pd.DataFrame(columns)


def contradictions(telemetry: pd.DataFrame, labels: pd.DataFrame, config: LabelConfig = _DEFAULT) -> dict[str, str]:
    """Labels that differ from what `telemetry` gives, each with the number of rows and the first moment.

    A label that is unknown contradicts nothing.
    """
    if labels[TIME].tolist() != telemetry[TIME].tolist():
        return {TIME: f"{len(labels)} rows of labels for {len(telemetry)} rows of telemetry, or other times"}
    expected, differing = future_labels(telemetry, config), {}
    for name in LABEL_COLUMNS[1:]:
        given, right = (table[name].to_numpy(float, na_value=np.nan) for table in (labels, expected))
        wrong = ~np.isnan(given) & ~np.isclose(given, right)
        if wrong.any():
            first = telemetry[TIME].iloc[int(wrong.argmax())]
            differing[name] = f"{int(wrong.sum())} of {len(given)} rows contradict, the first {first}"
    return differing


def current_state(telemetry: pd.DataFrame, config: LabelConfig) -> npt.NDArray[np.int8]:
    """(N,3) in the order of STATES: whether the driver brakes and coasts, and the car slows, at each row itself.

    1 yes, 0 no, -1 unknown.
    """
    brakes = switch(telemetry, BRAKE if BRAKE in telemetry else DERIVED_BRAKE)
    coasts = np.array([1, 0, -1], np.int8)[pressed(telemetry, config.coast_threshold)]
    t, speed = separated_times(telemetry), telemetry["SPEED"].to_numpy()
    before, near = future_rows(t, -1000, round(config.tolerance_s * 1000))
    deceleration = (speed[before] - speed) / 3.6 / np.maximum((t - t[before]) / 1000, 0.5)
    slows = np.where(near, deceleration.round(6) >= config.slow_threshold, -1)
    return np.column_stack([brakes, coasts, slows]).astype(np.int8)


def switch(telemetry: pd.DataFrame, name: str) -> npt.NDArray[np.int8]:
    """(N,) a switch at each row: 1 on, 0 off, -1 unknown, as all are of a recording without it."""
    if name not in telemetry:
        return np.full(len(telemetry), -1, np.int8)
    return np.asarray(telemetry[name].astype("boolean").to_numpy(np.int8, na_value=-1))


def pressed(telemetry: pd.DataFrame, coast_threshold: float) -> npt.NDArray[np.int8]:
    """(N,) whether the accelerator is pressed at each row, by its position or else by its switch: 1, 0, -1 unknown."""
    if PEDAL not in telemetry:
        return switch(telemetry, PRESSED)
    return (telemetry[PEDAL].to_numpy() >= coast_threshold).astype(np.int8)


def row_reasons(telemetry: pd.DataFrame, coast_threshold: float) -> dict[str, str]:
    """`not_driven` in words: the share of rows by reason, where there are any."""
    counts = {reason: int(rows.sum()) for reason, rows in not_driven(telemetry, coast_threshold).items()}
    return {reason: f"{count} of {len(telemetry)} rows" for reason, count in counts.items() if count}


def brake_source(telemetry: pd.DataFrame) -> str:
    """Where brake labels come from: measured; derived, by `derived_brake`; or unknown, as they then all are."""
    return "measured" if BRAKE in telemetry else "derived" if DERIVED_BRAKE in telemetry else "unknown"


def derived_brake(telemetry: pd.DataFrame) -> pd.arrays.BooleanArray:
    """(N,) whether the brake is pressed, of a car with a combustion engine and without a brake signal.

    Known only beyond doubt: the car slows by `BRAKED_KMH_S` or more, or the accelerator is pressed while it does not.
    """
    change = speed_change(telemetry)
    around = np.roll(change, 1)
    brakes = around <= -BRAKED_KMH_S
    driven = (pressed(telemetry, _DEFAULT.coast_threshold) == 1) & (np.minimum(change, around) >= 0)
    return pd.arrays.BooleanArray(brakes, ~brakes & ~driven)


def not_driven(telemetry: pd.DataFrame, coast_threshold: float) -> dict[str, npt.NDArray[np.bool_]]:
    """(N,) by reason, the rows in which the pedals do not show what a driver ahead of traffic does."""
    assistance = switch(telemetry, "ASSISTANCE")
    return {
        "driver assistance engaged": assistance == 1,
        "not known whether driver assistance is engaged": (assistance < 0) & ("ASSISTANCE" in telemetry),
        "reverse gear": switch(telemetry, "REVERSE") == 1,
        INFERRED: assisted(telemetry, coast_threshold) & (assistance != 1),
    }


def assisted(telemetry: pd.DataFrame, coast_threshold: float) -> npt.NDArray[np.bool_]:
    """(N,) rows in which driver assistance drives: accelerator and brake are released for seconds, and the engine's
    load holds the speed."""
    if not {"ENGINE_LOAD", PEDAL, SLOT} <= {*telemetry}:
        return np.zeros(len(telemetry), bool)
    pedal = telemetry[PEDAL].to_numpy()
    released = (pedal < coast_threshold) & (pedal <= pedal.min() + REST_BAND) & (switch(telemetry, BRAKE) < 1)
    holds = (speed_change(telemetry) >= -HELD_KMH_S) & (telemetry["SPEED"].to_numpy() > ASSISTED_KMH)
    candidates = pd.Series(released & holds & (telemetry["ENGINE_LOAD"].to_numpy() >= ASSISTED_LOAD))
    runs = candidates.groupby((candidates != candidates.shift()).cumsum()).transform("size")
    return (candidates & (runs >= ASSISTED_ROWS)).to_numpy()


def speed_change(telemetry: pd.DataFrame) -> npt.NDArray[np.float64]:
    """(N,) how much faster the car is a second, two rows, later, km/h; 0 where a gap begins or the drive ends."""
    slots, speed = telemetry[SLOT].to_numpy(), telemetry["SPEED"].to_numpy()
    change = np.zeros(len(speed))
    follows = (slots[2:] > slots[:-2]) & (slots[2:] - slots[:-2] <= 2 * MAX_STEP_MS)
    change[:-2] = np.where(follows, speed[2:] - speed[:-2], 0.0)
    return change


def _number(telemetry: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    """(N,) values of a channel; NaN throughout without it."""
    return telemetry[name].to_numpy(float) if name in telemetry else np.full(len(telemetry), np.nan)


def future_rows(
    t: npt.NDArray[np.int64], horizon_ms: int, tolerance_ms: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For rising times t (N,) in ms: the row nearest to t + horizon (N,), and whether it is near enough (N,)."""
    rows = nearest_rows(t, t + horizon_ms)
    return rows, np.abs(t[rows] - t - horizon_ms) <= tolerance_ms


def write_future_labels(
    path: Path, labels: pd.DataFrame, config: LabelConfig = _DEFAULT, brake: str = "measured"
) -> None:
    """Write the table, atomically: booleans as True and False, unknown as an empty cell.

    Its config is written beside it, with `brake`, the `brake_source`.
    """
    write_json(path.with_suffix(CONFIG_SUFFIX), {**config.model_dump(), BRAKE_SOURCE: brake})
    with atomic_path(path) as temporary:
        labels.to_csv(temporary, index=False)


def read_label_config(path: Path) -> LabelConfig:
    """The config that the labels in `path` were made with; the default one where it is not recorded.

    Raises:
        DataError: the file beside `path` is not a config of labels.
    """
    config_path = path.with_suffix(CONFIG_SUFFIX)
    content = read_object(config_path, "a config of labels; label the recording again")
    content.pop(BRAKE_SOURCE, None)
    try:
        return LabelConfig(**content)
    except DataError as error:
        raise DataError(f"{config_path}: {error} Label the recording again.") from error


def read_future_labels(path: Path) -> pd.DataFrame:
    """Read the table as `future_labels` returns it.

    Raises:
        DataError: missing, a column missing, or a cell of the wrong kind.
    """
    kinds: dict[str, Any] = dict.fromkeys(LABEL_COLUMNS[1:], "float64") | dict.fromkeys(TASKS, "boolean")
    return read_table(path, LABEL_COLUMNS, "label", {TIME: str, **kinds})
