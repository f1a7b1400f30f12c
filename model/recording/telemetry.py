"""The one reader of `telemetry.csv`: what loggers write becomes typed columns at 2 Hz; dropped rows are counted."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.recording.dialect import DECIMAL_MARKS, Cells, Dialect, ReadingConfig, read_cells
from model.recording.gears import infer_gear
from model.recording.ranges import within_range
from model.recording.schema import CHANNELS, GEARS, TIME
from model.recording.times import FASTEST_STEP_MS, MAX_STEP_MS, SLOT, read_times, recorded_step, two_hertz
from model.recording.values import booleans, decimal_mark, is_empty, missing, numbers

FAULT_TIMES = {"No Frame": "no_frame", "Incomplete Data": "incomplete"}
NO_DATA = "No Data"
PEDAL = "ACCELERATOR_POS_D"
MOST_STEPS_BACK, MOST_BACK_SHARE = 4, 0.1
"""A clock is set back a few times in a drive, not every few rows."""
_DEFAULT = ReadingConfig()


@dataclass(frozen=True)
class TelemetryReport:
    """What a file holds, in rows unless stated otherwise."""

    rows: int
    valid: int
    no_frame: int
    incomplete: int
    """Marked by the recorder, cut short, or with an empty cell."""
    unreadable: int
    """With a cell of the wrong kind."""
    headers: int
    """The header again, as after a restart."""
    out_of_range: int
    """With an impossible value."""
    out_of_range_example: str
    """The channel with most of them, and how far it reaches."""
    sentinels: int
    """With a byte's "no answer" between other values."""
    repeated: int
    backwards: int
    """Steps back in time: rows before and after such a step never share a window or a label."""
    left_out: int
    """Readable rows that 2 Hz do not need."""
    empty_columns: tuple[str, ...]
    """Channels whose column holds no value in any row."""
    gear_inferred: int
    gaps: int
    longest_gap_s: float
    duration_s: float
    dialect: Dialect

    @property
    def share_lost(self) -> float:
        return 1 - (self.valid + self.left_out) / max(self.rows, 1)

    def to_dict(self) -> dict[str, int | float]:
        """The numbers."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, (int, float))}


def read_telemetry(path: Path, config: ReadingConfig = _DEFAULT) -> tuple[pd.DataFrame, TelemetryReport]:
    """Read a recording's telemetry.

    Rows that the recorder marked as failed, rows that cannot be read and rows with impossible values are dropped and
    counted. The order is the file's: where time steps back a new segment begins. Of rows with the same time the last is
    kept, as its frame is the one on disk. Of more than 2 Hz the rows nearest to each half second are kept.

    Returns:
        A row per valid sample: `Time` (text as recorded: the frame's name), `t` (int64, ms since 1970 in the recorder's
        local time), `slot` (the same, but of thinned out rows the half second that they stand for: two rows follow each
        other if their slots do), `segment` (int64, from 0), and the channels that the file has: numbers float64,
        BRAKE_SIGNAL bool, GEAR int8; and the report.

    Raises:
        DataError: file missing or empty, a required column missing, no valid row, more than `most_unreadable` of the
            rows unreadable (the recorder's own fault rows do not count), or fewer than 2 rows a second.
    """
    rows = _Rows.parse(path, read_cells(path, config), config)
    rows.refuse_unreadable(path, config.most_unreadable)
    table, counts, example = within_range(rows.table)
    if table.empty:
        reason = min(rows.problems, default=(0, example))[1]
        raise DataError(
            f"{path} has no valid row: all {len(rows.kinds)} are fault rows of the recorder, unreadable or out of range"
            f"{f' ({reason})' if reason else ''}. Expected at least one sample; record the drive again or leave it out."
        )
    backwards = np.diff(table["t"], prepend=table["t"].iloc[0]) < 0
    if backwards.sum() > max(MOST_STEPS_BACK, MOST_BACK_SHARE * len(table)):
        raise DataError(
            f"{path} steps back in time {backwards.sum()} times in {len(table)} rows: its rows are not in the order in "
            "which they were recorded. Restore that order."
        )
    table.insert(2, SLOT, table["t"])
    table.insert(3, "segment", np.cumsum(backwards))
    step = recorded_step(path, rows.table["t"].to_numpy())
    distinct = table.drop_duplicates("t", keep="last")
    kept = two_hertz(distinct, step) if step is not None and step < FASTEST_STEP_MS else distinct.reset_index(drop=True)
    steps = np.diff(kept[SLOT])
    report = TelemetryReport(
        rows=len(rows.kinds),
        valid=len(kept),
        **{kind: int((rows.kinds == kind).sum()) for kind in ("no_frame", "incomplete", "unreadable", "headers")},
        **counts,
        out_of_range_example=example,
        repeated=len(table) - len(distinct),
        backwards=int(backwards.sum()),
        left_out=len(distinct) - len(kept),
        empty_columns=rows.empty,
        gear_inferred=int(kept.pop("inferred").sum()),
        gaps=int((steps > MAX_STEP_MS).sum()),
        longest_gap_s=float(steps.max(initial=0)) / 1000,
        duration_s=float(steps[steps > 0].sum()) / 1000,
        dialect=replace(rows.dialect, rate_hz=None if step is None else round(1000 / step, 2)),
    )
    return kept, report


@dataclass
class _Rows:
    """The rows of a file: why some are dropped, and the values of the others."""

    kinds: npt.NDArray[np.object_]
    """(N,) no_frame, incomplete, headers, unreadable; empty if a row is to be kept"""
    table: pd.DataFrame
    """The rows to keep, in the file's order; `inferred` marks rows whose gear is inferred"""
    empty: tuple[str, ...]
    """Channels whose column holds no value, as if it were not there"""
    problems: list[tuple[int, str]]
    """(index of the row, what is wrong where) of the first unreadable row of each column"""
    dialect: Dialect

    @classmethod
    def parse(cls, path: Path, cells: Cells, config: ReadingConfig) -> "_Rows":
        empty = _empty_channels(path, cells)
        names = [name for name in CHANNELS if name in cells.columns and name not in empty]
        numeric = [name for name in names if CHANNELS[name].kind != "flag"]
        mark = decimal_mark(path, cells, numeric, config)
        times, t = read_times(cells.columns[TIME], config.time_format)
        texts = cells.columns | {TIME: times}
        kinds, problems = _fault_kinds(cells, names), list[tuple[int, str]]()

        def check(column: str, readable: npt.NDArray[np.bool_], expected: str) -> None:
            bad = ~readable & (kinds == "")
            if bad.any():
                kinds[bad] = "unreadable"
                row = int(bad.argmax())
                fault = "a quote without its end, a NUL, or too many cells"
                if not cells.broken[row]:
                    fault = f"column {column}: {texts[column][row]!r} is not {expected}"
                problems.append((row, f"row {cells.line[row]}, {fault}"))

        values, spelling = dict[str, npt.NDArray](), ""
        check(TIME, ~cells.broken, "")
        check(TIME, t >= 0, config.time_format or "YYYY-MM-DD HH-MM-SS-d from 1970 on")
        for name in names:
            if CHANNELS[name].kind == "flag":
                values[name], known, spelling = booleans(texts[name], config)
                check(name, known, "True or False")
                continue
            values[name] = numbers(texts[name], mark) * config.factors.get(name, 1.0)
            if name != "GEAR":
                check(name, np.isfinite(values[name]), "a number")
        inferred = np.zeros(len(t), bool)
        if config.pedal_range:
            rest, full = config.pedal_range
            values[PEDAL] = (values[PEDAL] - rest) / (full - rest) * 100
        if "GEAR" in names:
            inferred = ~np.isin(values["GEAR"], range(GEARS))
            may_infer = ("RPM" in names) & (np.isfinite(values["GEAR"]) | missing(texts["GEAR"]))
            check("GEAR", ~inferred | may_infer, "0 to 5, or nothing")
            if "RPM" in names:
                guess = infer_gear(values["SPEED"], values["RPM"], values[PEDAL])
                values["GEAR"] = np.where(inferred, guess, values["GEAR"])
        table = pd.DataFrame({TIME: texts[TIME], "t": t, **values, "inferred": inferred})[kinds == ""]
        if "GEAR" in names:
            table["GEAR"] = table["GEAR"].astype(np.int8)
        dialect = Dialect(cells.encoding, cells.separator, DECIMAL_MARKS[mark], spelling, None)
        return cls(kinds, table, empty, problems, dialect)

    def refuse_unreadable(self, path: Path, most: float) -> None:
        unreadable, samples = (
            int((self.kinds == "unreadable").sum()),
            int(np.isin(self.kinds, ["unreadable", ""]).sum()),
        )
        if max(1, most * samples) < unreadable < samples:
            raise DataError(
                f"{path}, {min(self.problems)[1]}. {unreadable} of {samples} rows ({unreadable / samples:.1%}) cannot "
                f"be read, more than {most:.0%}, with columns separated by {self.dialect.separator} and a decimal "
                f"{self.dialect.decimal_mark}. Correct the cells, declare in reading.json how the file is written, or "
                "allow more with most_unreadable."
            )


def _empty_channels(path: Path, cells: Cells) -> tuple[str, ...]:
    """Channels whose column holds no value.

    Raises:
        DataError: there is no row, or a required channel has no value.
    """
    if not len(cells.line):
        raise DataError(f"{path} has no valid row: it is only a header. Record the drive again or leave it out.")
    samples = ~np.isin(cells.columns[TIME], list(FAULT_TIMES))
    if not samples.any():
        return ()
    empty = [name for name in CHANNELS if name in cells.columns and is_empty(cells.columns[name][samples])]
    if required := [name for name in empty if CHANNELS[name].required]:
        raise DataError(f"{path} has no value in the column {', '.join(required)}: check the recorder.")
    if "RPM" in cells.columns and "RPM" not in empty:  # the gear follows from it and the speed
        empty = [name for name in empty if name != "GEAR"]
    return tuple(empty)


def _fault_kinds(cells: Cells, channels: list[str]) -> npt.NDArray[np.object_]:
    """Why a row that is not broken is dropped before its values are read: by what the recorder wrote, or cut short."""
    kinds = pd.Series(cells.columns[TIME], dtype=object).map(FAULT_TIMES).fillna("").to_numpy(object)
    incomplete = np.zeros(len(kinds), bool)
    for name in (TIME, *channels):
        incomplete |= cells.columns[name] == NO_DATA
        if name != "GEAR" or "RPM" not in channels:  # the gear follows from speed and engine speed
            incomplete |= cells.columns[name] == ""
    kinds[incomplete & (kinds == "") & ~cells.broken] = "incomplete"
    kinds[cells.header_again] = "headers"
    return kinds
