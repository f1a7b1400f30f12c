"""The one reader of `telemetry.csv`: the recorder's fault rows become dropped, counted rows and typed columns."""

from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.recording.schema import CHANNELS, GEARS, REQUIRED_COLUMNS, TIME

FAULT_TIMES = {"No Frame": "no_frame", "Incomplete Data": "incomplete"}
NO_DATA = "No Data"
TRUE_FALSE = {"True": True, "False": False, "true": True, "false": False, "1": True, "0": False}
MAX_STEP_MS = 601
"""Two rows further apart than this have a gap between them."""

GEAR_RATIOS = np.array([9.5, 16.5, 27.5, 40.5, 53.5])
"""km/h per 1000 rpm in gears 1 to 5."""
NEUTRAL_BELOW_KMH = 6.0
IDLE_RPM = 920.0

_TIME = r"^(\d{4}-\d{2}-\d{2}) (\d{2})-(\d{2})-(\d{2})(?:-(\d{1,6}))?$"


@dataclass(frozen=True)
class TelemetryReport:
    """What the reader found in a file, in rows unless said otherwise."""

    rows: int
    valid: int
    no_frame: int
    incomplete: int
    out_of_range: int
    repeated: int
    backwards: int
    gear_inferred: int
    gaps: int
    longest_gap_s: float
    duration_s: float

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


def read_telemetry(path: Path) -> tuple[pd.DataFrame, TelemetryReport]:
    """Read a recording's telemetry.

    Rows that the recorder marked as failed, rows cut short and rows with impossible values are dropped and counted.
    The rest is sorted by time; of rows with the same time the last is kept, as its frame is the one on disk.

    Returns:
        A row per valid sample: `Time` (text as recorded: the frame is `<Time>.jpg`), `t` (int64, ms since 1970 in the
        recorder's local time), and the channels that the file has: numbers float64, BRAKE_SIGNAL bool, GEAR int8; and
        the report.

    Raises:
        DataError: file missing or empty, a column missing, no valid row, or a cell that is not what its column holds.
    """
    raw = _read_cells(path)
    kinds = _fault_kinds(raw)
    kept = raw[kinds == ""]
    t = parse_times(kept["Time"])
    _refuse(path, kept["Time"], t < 0, "Time", "YYYY-MM-DD HH-MM-SS-d")
    columns: dict[str, npt.NDArray] = {"Time": kept["Time"].to_numpy(object), "t": t}
    for name in _present(kept, "number"):
        values = pd.to_numeric(kept[name], errors="coerce").to_numpy(float)
        _refuse(path, kept[name], ~np.isfinite(values), name, "a number")
        columns[name] = values
    for name in _present(kept, "flag"):
        flags = kept[name].map(TRUE_FALSE)
        _refuse(path, kept[name], flags.isna().to_numpy(), name, "True or False")
        columns[name] = flags.to_numpy(bool)
    inferred = np.zeros(len(kept), bool)
    for name in _present(kept, "gear"):
        columns[name], inferred = _gears(path, kept[name], columns)
    table = pd.DataFrame(columns)
    plausible = np.ones(len(table), bool)
    for name in set(table.columns) & set(CHANNELS):
        if limits := CHANNELS[name].plausible:
            plausible &= table[name].between(*limits).to_numpy()
    table, inferred = table[plausible], inferred[plausible]
    if table.empty:
        raise DataError(
            f"{path} has no valid row: all {len(raw)} are fault rows of the recorder or out of range. "
            "Expected at least one sample; record the drive again or leave it out."
        )
    backwards = int((np.diff(table["t"]) < 0).sum())
    ordered = table.sort_values("t", kind="stable").drop_duplicates("t", keep="last").reset_index(drop=True)
    steps = np.diff(ordered["t"])
    report = TelemetryReport(
        rows=len(raw),
        valid=len(ordered),
        no_frame=int((kinds == "no_frame").sum()),
        incomplete=int((kinds == "incomplete").sum()),
        out_of_range=int((~plausible).sum()),
        repeated=len(table) - len(ordered),
        backwards=backwards,
        gear_inferred=int(inferred.sum()),
        gaps=int((steps > MAX_STEP_MS).sum()),
        longest_gap_s=float(steps.max(initial=0)) / 1000,
        duration_s=float(ordered["t"].iloc[-1] - ordered["t"].iloc[0]) / 1000,
    )
    return ordered, report


def parse_times(times: pd.Series) -> npt.NDArray[np.int64]:
    """Milliseconds since 1970 of `YYYY-MM-DD HH-MM-SS[-fraction]` texts (1 to 6 digits); -1 where invalid."""
    parts = times.astype(object).str.extract(_TIME)
    moment = pd.to_datetime(
        parts[0] + "T" + parts[1] + ":" + parts[2] + ":" + parts[3], format="%Y-%m-%dT%H:%M:%S", errors="coerce"
    )
    fraction = parts[4].fillna("0").str.ljust(6, "0").astype("int64").to_numpy() // 1000
    milliseconds = moment.astype("datetime64[ms]").astype("int64").to_numpy()
    return np.where(moment.isna().to_numpy(), -1, milliseconds + fraction)


def infer_gear(
    speed: npt.NDArray[np.float64], rpm: npt.NDArray[np.float64], pedal: npt.NDArray[np.float64]
) -> npt.NDArray[np.int8]:
    """Gear from km/h per 1000 rpm; 0 when slow, when idling without throttle, or when no gear fits."""
    ratio = speed / np.maximum(rpm / 1000, 1e-9)
    distance = np.abs(ratio[:, None] - GEAR_RATIOS)
    fits = distance.min(axis=1) <= 0.001 + 0.025 * ratio
    neutral = (speed < NEUTRAL_BELOW_KMH) | ((rpm <= IDLE_RPM) & (pedal <= 0)) | ~fits
    return np.where(neutral, 0, distance.argmin(axis=1) + 1).astype(np.int8)


def _present(cells: pd.DataFrame, kind: str) -> list[str]:
    return [name for name, channel in CHANNELS.items() if channel.kind == kind and name in cells.columns]


def _gears(
    path: Path, cells: pd.Series, columns: dict[str, npt.NDArray]
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.bool_]]:
    """Gears (N,), and which of them are inferred (N,): empty cells and values that are no gear."""
    given = pd.to_numeric(cells.replace("", "nan"), errors="coerce").to_numpy(float)
    _refuse(path, cells, np.isnan(given) & (cells != "").to_numpy(), str(cells.name), "0 to 5, or nothing")
    inferred = ~np.isin(given, range(GEARS))
    if "RPM" not in columns:
        _refuse(path, cells, inferred, str(cells.name), "0 to 5, as there is no RPM to infer it from")
        return given.astype(np.int8), inferred
    guess = infer_gear(columns["SPEED"], columns["RPM"], columns["ACCELERATOR_POS_D"])
    return np.where(inferred, guess, given).astype(np.int8), inferred


def _read_cells(path: Path) -> pd.DataFrame:
    """The file's cells as text; a row's index + 2 is its line."""
    try:
        raw = pd.read_csv(
            path, dtype=str, keep_default_na=False, na_values=[], encoding="utf-8-sig", skip_blank_lines=False
        )
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected the recorder's telemetry; copy the whole folder.") from None
    except pd.errors.EmptyDataError:
        raise DataError(f"{path} is empty: expected a header and rows; copy the recording again.") from None
    except (pd.errors.ParserError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is no CSV table ({error}): expected the recorder's telemetry.") from error
    raw.columns = raw.columns.str.strip()
    missing = [name for name in REQUIRED_COLUMNS if name not in raw.columns]
    if missing:
        raise DataError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}: expected "
            f"{', '.join(REQUIRED_COLUMNS)} in its header, and may have {', '.join(CHANNELS)}."
        )
    cells = raw[[TIME, *(name for name in CHANNELS if name in raw.columns)]].fillna("")
    return cells.apply(lambda column: column.str.strip())


def _fault_kinds(raw: pd.DataFrame) -> npt.NDArray[np.object_]:
    """Why each row is to be dropped: `no_frame`, `incomplete`, or nothing. A row cut short is incomplete."""
    kinds = raw["Time"].map(FAULT_TIMES).fillna("").to_numpy(object)
    may_be_empty = "GEAR" if "RPM" in raw.columns else ""  # the gear follows from speed and engine speed
    needed = raw[[name for name in raw.columns if name != may_be_empty]]
    incomplete = ((raw == NO_DATA).any(axis=1) | (needed == "").any(axis=1)).to_numpy()
    kinds[incomplete & (kinds == "")] = "incomplete"
    return kinds


def _refuse(path: Path, cells: pd.Series, wrong: npt.NDArray[np.bool_], column: str, expected: str) -> None:
    if wrong.any():
        first = cells[wrong].iloc[0]
        line = int(cells.index[wrong][0]) + 2
        more = f" ({int(wrong.sum())} such rows)" if wrong.sum() > 1 else ""
        raise DataError(
            f"{path}, row {line}, column {column}: {first!r} is not {expected}{more}. "
            "Correct the cell, or mark the row as the recorder does: Time 'Incomplete Data'."
        )
