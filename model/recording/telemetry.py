"""The one reader of `telemetry.csv`: what loggers write becomes typed columns at 2 Hz; what is dropped is counted."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from model.common.config import Config
from model.common.errors import DataError
from model.recording.dialect import Cells, Dialect, read_cells
from model.recording.gears import infer_gear
from model.recording.numerals import booleans, decimal_mark, has_thousands, is_missing, missing, numbers
from model.recording.ranges import within_range
from model.recording.schema import CHANNELS, GEARS, REQUIRED_COLUMNS, SPELLINGS, TIME
from model.recording.times import (
    FASTEST_STEP_MS,
    MAX_STEP_MS,
    SLOT,
    parse_times,
    plain_times,
    recorded_step,
    two_hertz,
)

FAULT_TIMES = {"No Frame": "no_frame", "Incomplete Data": "incomplete"}
NO_DATA = "No Data"
PEDAL = "ACCELERATOR_POS_D"
AS_RECORDED = (0.0, 100.0)
"""The range of a pedal that needs no rescaling."""
MOST_UNREADABLE = 0.05
MOST_STEPS_BACK, MOST_BACK_SHARE = 4, 0.1
"""A clock is set back a few times in a drive, not every few rows."""


class ReadingConfig(Config):
    """What of a file must be readable."""

    most_unreadable: float = Field(
        MOST_UNREADABLE,
        ge=0,
        le=1,
        description="Share of telemetry rows, besides the recorder's own fault rows, that may be unreadable and are "
        "dropped; a recording with more is refused. One row always may",
    )
    pedal_range: list[float] = Field(
        [],
        description="What ACCELERATOR_POS_D reads with the pedal at rest and fully pressed, such as [14.12, 81.56] or "
        "[0, 255]: it is rescaled to 0 to 100 %, now and whenever the recording is read. Empty: as it was read before; "
        "[0, 100]: as recorded",
    )

    @model_validator(mode="after")
    def _two_positions(self) -> Self:
        if self.pedal_range and not (
            len(self.pedal_range) == 2
            and all(np.isfinite(self.pedal_range))
            and self.pedal_range[0] != self.pedal_range[1]
        ):
            raise DataError(
                f"pedal_range {self.pedal_range}: expected two different numbers, at rest and fully pressed."
            )
        return self


@dataclass(frozen=True)
class TelemetryReport:
    """What the reader found in a file, in rows unless said otherwise."""

    rows: int
    valid: int
    no_frame: int
    incomplete: int
    """Marked by the recorder, cut short, or with an empty cell."""
    unreadable: int
    """With a cell that is not what its column holds."""
    headers: int
    """The header again, as after a restart."""
    out_of_range: int
    """With a value that cannot be."""
    out_of_range_example: str
    """The channel that this is so for most, and how far it reaches."""
    sentinels: int
    """With a byte's "no answer" in the midst of other values."""
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
        """The figures."""
        return {name: value for name, value in asdict(self).items() if isinstance(value, (int, float))}


def read_telemetry(
    path: Path, most_unreadable: float = MOST_UNREADABLE, pedal_range: Sequence[float] = ()
) -> tuple[pd.DataFrame, TelemetryReport]:
    """Read a recording's telemetry, its options as in `ReadingConfig`.

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
    cells, empty = _without_empty(path, read_cells(path, SPELLINGS, REQUIRED_COLUMNS))
    rows = _Rows.parse(cells)
    rows.refuse_unreadable(path, most_unreadable)
    if pedal_range:
        rest, full = pedal_range
        rows.values[PEDAL] = (rows.values[PEDAL] - rest) / (full - rest) * 100
    table, counts, example = within_range(rows.table())
    if table.empty:
        reason = rows.first_problem() or example
        raise DataError(
            f"{path} has no valid row: all {len(cells.line)} are fault rows of the recorder, unreadable or out of range"
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
    step = recorded_step(path, rows.t[rows.kinds == ""])
    ordered = table.drop_duplicates("t", keep="last")
    repeated = len(table) - len(ordered)
    kept = two_hertz(ordered, step) if step is not None and step < FASTEST_STEP_MS else ordered.reset_index(drop=True)
    steps = np.diff(kept[SLOT])
    time_base = Dialect.time_base + (f", set back {backwards.sum()} times" if backwards.any() else "")
    report = TelemetryReport(
        rows=len(cells.line),
        valid=len(kept),
        **{kind: int((rows.kinds == kind).sum()) for kind in ("no_frame", "incomplete", "unreadable", "headers")},
        **counts,
        out_of_range_example=example,
        repeated=repeated,
        backwards=int(backwards.sum()),
        left_out=len(ordered) - len(kept),
        empty_columns=empty,
        gear_inferred=int(kept.pop("inferred").sum()),
        gaps=int((steps > MAX_STEP_MS).sum()),
        longest_gap_s=float(steps.max(initial=0)) / 1000,
        duration_s=float(steps[steps > 0].sum()) / 1000,
        dialect=replace(rows.dialect, rate_hz=None if step is None else round(1000 / step, 2), time_base=time_base),
    )
    return kept, report


@dataclass
class _Rows:
    """The rows of a file: why each is to be dropped, and what is in the others."""

    cells: Cells
    kinds: npt.NDArray[np.object_]
    """(N,) no_frame, incomplete, headers, unreadable; empty if a row is to be kept"""
    dialect: Dialect
    t: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    values: dict[str, npt.NDArray] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    """(index of the row, what is wrong with it) of the first problem of each column"""

    @classmethod
    def parse(cls, cells: Cells) -> "_Rows":
        numeric = [name for name in cells.columns if name in CHANNELS and CHANNELS[name].kind != "flag"]
        marks, dialect = _dialect(cells, numeric)
        rows = cls(cells, _fault_kinds(cells), dialect)
        if cells.broken.any():
            rows.kinds[cells.broken] = "unreadable"
            rows.problems.append((int(cells.broken.argmax()), "a quote without its end, a NUL, or too many cells"))
        cells.columns[TIME] = plain_times(cells.columns[TIME])
        rows.t = parse_times(pd.Series(cells.columns[TIME]))
        rows._check(TIME, rows.t >= 0, "YYYY-MM-DD HH-MM-SS-d from 1970 on")
        for name in numeric:
            rows.values[name] = numbers(cells.columns[name], marks[name])
            if name != "GEAR":
                rows._check(name, np.isfinite(rows.values[name]), "a number")
        for name in cells.columns:
            if name in CHANNELS and CHANNELS[name].kind == "flag":
                rows.values[name], known, spelling = booleans(cells.columns[name])
                rows._check(name, known, "True or False")
                rows.dialect = replace(rows.dialect, booleans=spelling)
        if "GEAR" in cells.columns:
            given = rows.values["GEAR"]
            known = np.isfinite(given) | missing(cells.columns["GEAR"])
            rows._check("GEAR", known if "RPM" in cells.columns else np.isin(given, range(GEARS)), "0 to 5, or nothing")
        return rows

    def _check(self, column: str, readable: npt.NDArray[np.bool_], expected: str) -> None:
        bad = ~readable & (self.kinds == "")
        if bad.any():
            self.kinds[bad] = "unreadable"
            first = int(bad.argmax())
            self.problems.append((first, f"column {column}: {self.cells.columns[column][first]!r} is not {expected}"))

    def first_problem(self) -> str:
        """The first row that cannot be read; empty if there is none."""
        if not self.problems:
            return ""
        row, problem = min(self.problems)
        return f"row {self.cells.line[row]}, {problem}"

    def refuse_unreadable(self, path: Path, most: float) -> None:
        unreadable = int((self.kinds == "unreadable").sum())
        samples = unreadable + int((self.kinds == "").sum())
        if unreadable > max(1, most * samples) and unreadable < samples:
            row, problem = min(self.problems)
            raise DataError(
                f"{path}, row {self.cells.line[row]}, {problem}. {unreadable} of {samples} rows "
                f"({unreadable / samples:.1%}) cannot be read, more than {most:.0%}; the file is separated by "
                f"{self.dialect.separator}, with a decimal {self.dialect.decimal_mark}. Correct the cells, mark the "
                "rows as the recorder does (Time 'Incomplete Data'), or allow more with most_unreadable."
            )

    def table(self) -> pd.DataFrame:
        """The rows that are kept, in the file's order; `inferred` says whose gear is."""
        kept = np.flatnonzero(self.kinds == "")
        columns: dict[str, npt.NDArray] = {TIME: self.cells.columns[TIME][kept], "t": self.t[kept]}
        columns |= {name: self.values[name][kept] for name in CHANNELS if name in self.values}
        columns["inferred"] = np.zeros(len(kept), bool)
        if "GEAR" in columns:
            given = columns["GEAR"]
            columns["inferred"] = ~np.isin(given, range(GEARS))
            if "RPM" in columns:
                guess = infer_gear(columns["SPEED"], columns["RPM"], columns[PEDAL])
                given = np.where(columns["inferred"], guess, given)
            columns["GEAR"] = given.astype(np.int8)
        return pd.DataFrame(columns)


def _without_empty(path: Path, cells: Cells) -> tuple[Cells, tuple[str, ...]]:
    """The columns that hold a value, and the others: a channel that no row has is as one whose column is not there.

    Raises:
        DataError: there is no row, or a channel that must be there has no value.
    """
    if not len(cells.line):
        raise DataError(f"{path} has no valid row: it is a header alone. Record the drive again or leave it out.")
    failed = pd.Series(cells.columns[TIME], dtype=object).isin(FAULT_TIMES).to_numpy()
    there = {name: cells.columns[name] for name in CHANNELS if name in cells.columns}
    empty = [name for name, column in there.items() if not failed.all() and is_missing(column, failed)]
    if "RPM" in there and "RPM" not in empty:  # the gear follows from it and the speed
        empty = [name for name in empty if name != "GEAR"]
    if lacking := [name for name in empty if CHANNELS[name].required]:
        raise DataError(f"{path} has no value in the column {', '.join(lacking)}: look at the recorder.")
    columns = {name: column for name, column in cells.columns.items() if name not in empty}
    return replace(cells, columns=columns), tuple(empty)


def _dialect(cells: Cells, numeric: Sequence[str]) -> tuple[dict[str, str], Dialect]:
    """The decimal mark of each numeric column, and what is known of the file by that."""
    columns = {name: cells.columns[name] for name in numeric}
    commas = any("," in "\n".join(column) for column in columns.values())
    usual = decimal_mark(columns.values()) if commas else "point"
    # Where nothing tells, a comma in a cell of a file that is separated by commas is none of a decimal.
    usual = usual or ("point" if cells.separator == "comma" else "comma")
    marks = {name: (decimal_mark([column]) or usual) if commas else usual for name, column in columns.items()}
    thousands = next((m for n, m in marks.items() if commas and has_thousands([columns[n]], m)), None)
    mark = "none" if thousands is None else "comma" if thousands == "point" else "point"
    return marks, Dialect(cells.encoding, cells.separator, usual, mark, "")


def _fault_kinds(cells: Cells) -> npt.NDArray[np.object_]:
    """Why each row is to be dropped by what the recorder wrote: a row cut short is incomplete."""
    time = pd.Series(cells.columns[TIME], dtype=object)
    kinds = time.map({**FAULT_TIMES, TIME: "headers"}).fillna("").to_numpy(object)
    may_be_empty = "GEAR" if "RPM" in cells.columns else ""  # the gear follows from speed and engine speed
    incomplete = np.zeros(len(time), bool)
    for name, column in cells.columns.items():
        incomplete |= column == NO_DATA
        if name != may_be_empty:
            incomplete |= column == ""
    kinds[incomplete & (kinds == "")] = "incomplete"
    return kinds
