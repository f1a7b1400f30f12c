"""`future_labels.csv`: what the driver will do one to five seconds from each row, looked up by time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.config import option
from model.common.errors import DataError
from model.common.files import write_text

HORIZONS_S = (1, 2, 3, 4, 5)
ACTIONS = ("brake", "coast")
BINARY_LABELS = tuple(f"{action}_{h}s" for action in ACTIONS for h in HORIZONS_S)
TARGETS = tuple(f"{quantity}_{h}s" for quantity in ("brake_force", "acc_pos") for h in HORIZONS_S)
DEFAULT_TASKS = ("brake_1s", "brake_2s", "coast_1s", "coast_2s")
COLUMNS = ("Time", *(f"{name}_{h}s" for h in HORIZONS_S for name in ("brake", "coast", "brake_force", "acc_pos")))


@dataclass(frozen=True)
class LabelConfig:
    """How the future is looked up."""

    coast_threshold: float = option(7.5, "Accelerator position (%) below which the car coasts")
    tolerance_s: float = option(0.3, "A row at most this far from t + h tells the label; beyond, it is unknown")

    def __post_init__(self) -> None:
        if not 0 < self.tolerance_s < 1 or not 0 < self.coast_threshold <= 100:
            raise DataError(f"{self}: expected tolerance_s within (0, 1) and coast_threshold within (0, 100].")


def future_labels(telemetry: pd.DataFrame, config: LabelConfig = LabelConfig()) -> pd.DataFrame:
    """Labels of each valid row of `read_telemetry`'s table.

    The row nearest to t + h tells, if it is at most `tolerance_s` away; of two as near the earlier. Otherwise, past the
    end or in a gap, the label is unknown: <NA>, never False.

    Returns:
        `COLUMNS`; `brake_*` and `coast_*` nullable booleans, the rest floats, NaN where unknown.
    """
    columns: dict[str, object] = {"Time": telemetry["Time"]}
    brake = telemetry["BRAKE_SIGNAL"].to_numpy()
    coast = telemetry["ACCELERATOR_POS_D"].to_numpy() < config.coast_threshold
    force = np.maximum(telemetry["BRAKE_FORCE"].to_numpy(), 0.0)
    pedal = telemetry["ACCELERATOR_POS_D"].to_numpy()
    for h in HORIZONS_S:
        rows, known = future_rows(telemetry["t"].to_numpy(), h * 1000, round(config.tolerance_s * 1000))
        columns[f"brake_{h}s"] = pd.arrays.BooleanArray(brake[rows], ~known)
        columns[f"coast_{h}s"] = pd.arrays.BooleanArray(coast[rows], ~known)
        columns[f"brake_force_{h}s"] = np.where(known, force[rows], np.nan)
        columns[f"acc_pos_{h}s"] = np.where(known, pedal[rows], np.nan)
    return pd.DataFrame(columns)


def current_state(telemetry: pd.DataFrame, labels: pd.DataFrame) -> npt.NDArray[np.int8]:
    """(N,2) whether the driver brakes and coasts at each row itself, by the threshold that `labels` were made with.

    The table of labels does not name its coast threshold, but bounds it: above every pedal position labelled as
    coasting, at most the lowest labelled as not. The default is used where it agrees, else the nearest that does. Only
    a drive's first second is not covered by the labels, and no window ends there.
    """
    pedal = labels[[f"acc_pos_{h}s" for h in HORIZONS_S]].to_numpy(float)
    coasts = np.column_stack([labels[f"coast_{h}s"].to_numpy(float, na_value=np.nan) for h in HORIZONS_S])
    above = np.nextafter(pedal[coasts == 1].max(initial=-np.inf), np.inf)
    threshold = min(max(LabelConfig().coast_threshold, above), pedal[coasts == 0].min(initial=np.inf))
    coasting = telemetry["ACCELERATOR_POS_D"].to_numpy() < threshold
    return np.column_stack([telemetry["BRAKE_SIGNAL"].to_numpy(bool), coasting]).astype(np.int8)


def future_rows(
    t: npt.NDArray[np.int64], horizon_ms: int, tolerance_ms: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """For rising times t (N,) in ms: the row nearest to t + horizon (N,), and whether it is near enough (N,)."""
    wanted = t + horizon_ms
    after = np.minimum(np.searchsorted(t, wanted), len(t) - 1)
    before = np.maximum(after - 1, 0)
    rows = np.where(np.abs(t[before] - wanted) <= np.abs(t[after] - wanted), before, after)
    return rows, np.abs(t[rows] - wanted) <= tolerance_ms


def write_future_labels(path: Path, labels: pd.DataFrame) -> None:
    """Write the table, atomically: booleans as True and False, unknown as an empty cell."""
    columns = [labels["Time"].tolist()]
    for name in COLUMNS[1:]:
        values = labels[name]
        known = values.notna().to_numpy()
        if values.dtype == "boolean":
            texts = np.where(values.to_numpy(bool, na_value=False), "True", "False")
        else:
            texts = _texts(values.to_numpy(float))
        columns.append(np.where(known, texts, "").tolist())
    lines = [",".join(COLUMNS), *map(",".join, zip(*columns, strict=True))]
    write_text(path, "\n".join(lines) + "\n")


def read_future_labels(path: Path) -> pd.DataFrame:
    """Read the table as `future_labels` returns it.

    Raises:
        DataError: missing, a column missing, or a cell of the wrong kind.
    """
    kinds: dict[str, Any] = {name: "boolean" if name in BINARY_LABELS else "float64" for name in COLUMNS[1:]}
    try:
        table = pd.read_csv(path, dtype={"Time": str, **kinds})
    except FileNotFoundError:
        raise DataError(f"{path} is missing: label the recording first.") from None
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise DataError(f"{path} is no table of labels ({error}): label the recording again.") from error
    missing = [name for name in COLUMNS if name not in table.columns]
    if missing:
        raise DataError(f"{path} lacks {', '.join(missing)}: label the recording again.")
    return table


def _texts(values: npt.NDArray[np.float64]) -> npt.NDArray[np.str_]:
    """Shortest texts that read back as the same numbers; each distinct number is written once."""
    distinct, where = np.unique(values, return_inverse=True)
    return np.array([repr(value) for value in distinct.tolist()])[where]
