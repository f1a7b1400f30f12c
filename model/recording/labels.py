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
from model.recording.schema import BINARY_LABELS, HORIZONS_S, LABEL_COLUMNS, LABELS, TIME
from model.recording.tables import read_object, read_table
from model.recording.times import MAX_STEP_MS, SLOT, nearest_rows, separated_times


class LabelConfig(Config):
    """How the future is looked up."""

    coast_threshold: float = Field(7.5, gt=0, le=100, description="Accelerator position (%) below which the car coasts")
    tolerance_s: float = Field(
        0.3, gt=0, lt=1, description="Largest distance (s) of a row from t + h; without one, the label is unknown"
    )


ASSISTED_KMH, ASSISTED_LOAD, ASSISTED_ROWS = 20.0, 20.0, 10
"""Faster than a car creeps, km/h; more load than an engine has without fuel, %; five seconds."""
HELD_KMH_S, REST_BAND = 0.5, 0.5
"""A speed that falls no faster is held; a pedal within as many % of its lowest position rests."""
_DEFAULT = LabelConfig()
CONFIG_SUFFIX = ".json"
"""Of the file beside the labels that holds their config."""


def future_labels(telemetry: pd.DataFrame, config: LabelConfig = _DEFAULT) -> pd.DataFrame:
    """Labels of each valid row of `read_telemetry`'s table.

    A label is looked up in the row nearest to t + h, the earlier of two, if it is at most `tolerance_s` away.
    Otherwise, past the end, in a gap or where driver assistance drives, it is unknown: <NA>, never False.

    Returns:
        `LABEL_COLUMNS`; `brake_*` and `coast_*` nullable booleans, the rest floats, NaN where unknown.
    """
    quantities, assists = _quantities(telemetry, config), assisted(telemetry, config.coast_threshold)
    t, tolerance = separated_times(telemetry), round(config.tolerance_s * 1000)
    columns: dict[str, object] = {TIME: telemetry[TIME]}
    for h in HORIZONS_S:
        rows, near = future_rows(t, h * 1000, tolerance)
        known = near & ~assists[rows]
        for label in (label for label in LABELS if label.horizon_s == h):
            values = quantities[label.name.removesuffix(f"_{h}s")][rows]
            columns[label.name] = (
                pd.arrays.BooleanArray(values, ~known) if label.binary else np.where(known, values, np.nan)
            )
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


def current_state(telemetry: pd.DataFrame, coast_threshold: float) -> npt.NDArray[np.int8]:
    """(N,2) in the order of ACTIONS: whether the driver brakes and coasts at each row itself."""
    brakes = telemetry["BRAKE_SIGNAL"].to_numpy(bool)
    return np.column_stack([brakes, telemetry["ACCELERATOR_POS_D"].to_numpy() < coast_threshold]).astype(np.int8)


def assisted(telemetry: pd.DataFrame, coast_threshold: float) -> npt.NDArray[np.bool_]:
    """(N,) rows in which driver assistance drives: accelerator and brake are released for seconds, and the engine's
    load holds the speed."""
    if "ENGINE_LOAD" not in telemetry or SLOT not in telemetry:
        return np.zeros(len(telemetry), bool)
    pedal = telemetry["ACCELERATOR_POS_D"].to_numpy()
    released = (
        (pedal < coast_threshold) & (pedal <= pedal.min() + REST_BAND) & ~telemetry["BRAKE_SIGNAL"].to_numpy(bool)
    )
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


def _quantities(telemetry: pd.DataFrame, config: LabelConfig) -> dict[str, npt.NDArray]:
    """The quantity of each label at each row; NaN throughout without its channel."""
    pedal = telemetry["ACCELERATOR_POS_D"].to_numpy()
    force = telemetry.get("BRAKE_FORCE")
    return {
        "brake": telemetry["BRAKE_SIGNAL"].to_numpy(),
        "coast": pedal < config.coast_threshold,
        "brake_force": np.full(len(pedal), np.nan) if force is None else np.maximum(force.to_numpy(), 0.0),
        "acc_pos": pedal,
    }


def future_rows(
    t: npt.NDArray[np.int64], horizon_ms: int, tolerance_ms: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For rising times t (N,) in ms: the row nearest to t + horizon (N,), and whether it is near enough (N,)."""
    rows = nearest_rows(t, t + horizon_ms)
    return rows, np.abs(t[rows] - t - horizon_ms) <= tolerance_ms


def write_future_labels(path: Path, labels: pd.DataFrame, config: LabelConfig = _DEFAULT) -> None:
    """Write the table, atomically: booleans as True and False, unknown as an empty cell; and its config beside it."""
    write_json(path.with_suffix(CONFIG_SUFFIX), config.model_dump())
    with atomic_path(path) as temporary:
        labels[list(LABEL_COLUMNS)].to_csv(temporary, index=False)


def read_label_config(path: Path) -> LabelConfig:
    """The config that the labels in `path` were made with; the default one where it is not recorded.

    Raises:
        DataError: the file beside `path` is not a config of labels.
    """
    config_path = path.with_suffix(CONFIG_SUFFIX)
    content = read_object(config_path, "a config of labels; label the recording again")
    try:
        return LabelConfig(**content)
    except DataError as error:
        raise DataError(f"{config_path}: {error} Label the recording again.") from error


def read_future_labels(path: Path) -> pd.DataFrame:
    """Read the table as `future_labels` returns it.

    Raises:
        DataError: missing, a column missing, or a cell of the wrong kind.
    """
    kinds: dict[str, Any] = {name: "boolean" if name in BINARY_LABELS else "float64" for name in LABEL_COLUMNS[1:]}
    return read_table(path, LABEL_COLUMNS, "label", {TIME: str, **kinds})
