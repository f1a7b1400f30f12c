"""The one reader of `telemetry.csv`: what loggers write becomes typed columns at 2 Hz; dropped rows are counted."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.recording.dialect import DECIMAL_MARKS, Cells, Dialect, ReadingConfig, read_cells
from model.recording.gears import infer_gear, ratios_fit, recorded_gear
from model.recording.schema import CHANNELS, GEARS, PEDAL, TIME, WINDOW_FRAMES
from model.recording.times import FASTEST_STEP_MS, MAX_STEP_MS, SLOT, read_times, recorded_step, two_hertz
from model.recording.values import SELECTOR, booleans, decimal_mark, held, missing, numbers, within_range

FAULT_TIMES = {"No Frame": "no_frame", "Incomplete Data": "incomplete"}
NO_DATA = "No Data"
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
    remarks: tuple[str, ...]
    """How the file is read, where it is not as usual."""
    gear_inferred: int
    gaps: int
    longest_gap_s: float
    duration_s: float
    dialect: Dialect
    drivetrain: str
    """As declared or imported; empty if neither"""

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
    kept, as its frame is the one on disk. Of more than 2 Hz the rows nearest to each half second are kept. Switches
    that a recording need not have are unknown where their cell is empty.

    Returns:
        A row per valid sample: `Time` (text as recorded: the frame's name), `t` (int64, ms since 1970 in the recorder's
        local time), `slot` (the same, but of thinned out rows the half second that they stand for: two rows follow each
        other if their slots do), `segment` (int64, from 0), and the channels that the file has: numbers float64,
        switches bool, or nullable boolean if some are unknown, GEAR int8; and the report.

    Raises:
        DataError: file missing or empty, a required column missing, no valid row, more than `most_unreadable` of the
            rows unreadable (the recorder's own fault rows do not count), or fewer than 2 rows a second.
    """
    rows, parsed, empty, dialect = _parse(path, config)
    table, counts, example = within_range(parsed)
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
    step = recorded_step(path, parsed["t"].to_numpy())
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
        empty_columns=empty,
        remarks=tuple(rows.remarks),
        gear_inferred=int(kept.pop("inferred").sum()),
        gaps=int((steps > MAX_STEP_MS).sum()),
        longest_gap_s=float(steps.max(initial=0)) / 1000,
        duration_s=float(steps[steps > 0].sum()) / 1000,
        dialect=replace(dialect, rate_hz=None if step is None else round(1000 / step, 2)),
        drivetrain=config.drivetrain,
    )
    return kept, report


@dataclass
class _Rows:
    """The rows of a file while they are read: why some are dropped, and the values of the others."""

    cells: Cells
    kinds: npt.NDArray[np.object_]
    """(N,) no_frame, incomplete, headers, unreadable; empty if a row is to be kept"""
    problems: list[tuple[int, str]] = field(default_factory=list)
    """(index of the row, what is wrong where) of the first unreadable row of each column"""
    remarks: list[str] = field(default_factory=list)

    def require(self, readable: npt.NDArray[np.bool_], column: str, expected: str) -> None:
        bad = ~readable & (self.kinds == "")
        if bad.any():
            row = int(bad.argmax())
            self.kinds[bad] = "unreadable"
            text = f"column {column}: {self.cells.columns[column][row]!r} is not {expected}"
            self.problems.append((row, f"row {self.cells.line[row]}, {text}"))

    def refuse_unreadable(self, path: Path, most: float, mark: str) -> None:
        unreadable = int((self.kinds == "unreadable").sum())
        samples = unreadable + int((self.kinds == "").sum())
        if max(1, most * samples) < unreadable < samples:
            raise DataError(
                f"{path}, {min(self.problems)[1]}. {unreadable} of {samples} rows ({unreadable / samples:.1%}) cannot "
                f"be read, more than {most:.0%}, with columns separated by {self.cells.separator} and a decimal "
                f"{DECIMAL_MARKS[mark]}. Correct the cells, declare in reading.json how the file is written, or allow "
                "more with most_unreadable."
            )


def _parse(path: Path, config: ReadingConfig) -> tuple[_Rows, pd.DataFrame, tuple[str, ...], Dialect]:
    """The rows, the table of those to keep, channels without a value, and the dialect."""
    cells = read_cells(path, config)
    columns = cells.columns
    rows = _Rows(cells, cells.faults)
    if broken := np.flatnonzero(rows.kinds == "unreadable").tolist():
        line = cells.line[broken[0]]
        rows.problems.append((broken[0], f"row {line}, a quote without its end, a NUL, or too many cells"))
    columns[TIME], t, are_milliseconds = read_times(columns[TIME], config.time_format)
    if are_milliseconds:
        rows.remarks.append(
            "fractions of Time are milliseconds without leading zeros: as decimals their steps are uneven"
        )
    empty = _empty_channels(path, cells, config)
    names = [name for name in CHANNELS if name in columns and name not in empty]
    _drop_faults(rows, names, t, config)
    rows.require(t >= 0, TIME, config.time_format or "YYYY-MM-DD HH-MM-SS-d from 1970 on")
    mark = decimal_mark(path, cells, [name for name in names if CHANNELS[name].kind != "flag"], config)
    values, spelling = dict[str, Any](), ""
    for name in names:
        if CHANNELS[name].kind == "flag":
            value, known, texts = booleans(columns[name], config)
            rows.require(known | (may_be_unknown(name, config) & missing(columns[name])), name, "True or False")
            values[name], spelling = pd.arrays.BooleanArray(value, ~known), spelling or texts
        elif CHANNELS[name].kind == "number":
            values[name] = numbers(columns[name], mark) * config.factors.get(name, 1.0)
            rows.require(np.isfinite(values[name]), name, "a number")
    silent = [name for name in values if _says_nothing(name, values[name][rows.kinds == ""])]
    for name in silent:
        del values[name]
    if config.pedal_range and PEDAL in values:
        rest, full = config.pedal_range
        values[PEDAL] = (values[PEDAL] - rest) / (full - rest) * 100
    inferred = np.zeros(len(t), bool)
    if "GEAR" in names:
        inferred, values["GEAR"] = _gears(rows, values, mark)
    kept = rows.kinds == ""
    table = pd.DataFrame({TIME: columns[TIME], "t": t, **values, "inferred": inferred})[kept]
    certain = [name for name in values if CHANNELS[name].kind == "flag" and not table[name].hasnans]
    table[certain] = table[certain].astype(bool)
    if "GEAR" in names:
        gear = table.pop("GEAR")  # gaps are left in cars with other ratios
        if gear.isna().all():
            silent.append("GEAR")
        else:
            segment = table["t"].diff().lt(0).cumsum()
            age = table["t"] - table["t"].where(gear.notna()).groupby(segment).ffill()
            table["GEAR"] = gear.ffill().where(age <= config.hold_s * 1000, 0).astype(np.int8)
    rows.refuse_unreadable(path, config.most_unreadable, mark)
    return rows, table, (*empty, *silent), Dialect(cells.encoding, cells.separator, DECIMAL_MARKS[mark], spelling, None)


def _says_nothing(name: str, values: npt.NDArray[np.float64]) -> bool:
    """Whether a channel is at 0, or at its highest, throughout: the engine's in an electric car, for example."""
    channel = CHANNELS[name]
    if channel.required or channel.kind == "flag" or channel.scaling is None or len(values) < WINDOW_FRAMES:
        return False
    return bool((values == 0).all() or (values == channel.scaling[1]).all())


def may_be_unknown(name: str, config: ReadingConfig) -> bool:
    """Whether an empty cell of a channel is an unknown value of its row: of switches that the recording may lack."""
    return CHANNELS[name].kind == "flag" and (not CHANNELS[name].required or name in config.missing_channels)


def _empty_channels(path: Path, cells: Cells, config: ReadingConfig) -> tuple[str, ...]:
    """Channels whose column holds no value.

    Raises:
        DataError: there is no row, or a required channel has no value.
    """
    if not len(cells.line):
        raise DataError(f"{path} has no valid row: it is only a header. Record the drive again or leave it out.")
    samples = ~np.isin(cells.columns[TIME], list(FAULT_TIMES))
    if not samples.any():
        return ()
    empty = [name for name in CHANNELS if name in cells.columns and missing(cells.columns[name][samples]).all()]
    if required := [name for name in empty if CHANNELS[name].required and name not in config.missing_channels]:
        raise DataError(f"{path} has no value in the column {', '.join(required)}: check the recorder.")
    if "RPM" in cells.columns and "RPM" not in empty:  # the gear follows from it and the speed
        empty = [name for name in empty if name != "GEAR"]
    return tuple(empty)


def _drop_faults(rows: _Rows, names: Sequence[str], t: npt.NDArray[np.int64], config: ReadingConfig) -> None:
    """Mark rows that are dropped before their values are read: by what the recorder wrote, or cut short."""
    columns, kinds = rows.cells.columns, rows.kinds
    for text, kind in FAULT_TIMES.items():
        kinds[(columns[TIME] == text) & (kinds == "")] = kind
    for name in names:
        kinds[(columns[name] == NO_DATA) & (kinds == "")] = "incomplete"
    kinds[(columns[TIME] == "") & (kinds == "")] = "incomplete"
    whole = kinds == ""
    for name in names:
        texts = columns[name]
        if name == "GEAR" and "RPM" in names:  # a missing gear follows from speed and engine speed
            continue
        if may_be_unknown(name, config) and not (CHANNELS[name].input and CHANNELS[name].stands_for not in names):
            continue
        if not CHANNELS[name].required and CHANNELS[name].kind != "flag":
            texts[whole] = held(texts[whole], t[whole], config.hold_s * 1000)
        elif CHANNELS[name].required and CHANNELS[name].kind == "flag" and (blank := whole & (texts == "")).any():
            value, known, _ = booleans(texts, config)
            if value[whole & ~blank].all() and known[whole & ~blank].all():
                texts[blank] = "False"
                rows.remarks.append(f"{name} is True or empty: empty cells count as False")
        kinds[whole & (texts == "")] = "incomplete"


def _gears(
    rows: _Rows, values: Mapping[str, npt.NDArray[np.float64]], mark: str
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """(N,) whether the gear is inferred, and (N,) gears, NaN where they are unknown."""
    texts = rows.cells.columns["GEAR"]
    letters = [SELECTOR.get(text.upper(), text) for text in texts]
    read = numbers(np.array(letters, object), mark)
    gear = recorded_gear(read)
    unknown = np.isnan(gear)
    may_be_unknown = ("RPM" in rows.cells.columns) & (np.isfinite(read) | missing(np.array(letters, object)))
    rows.require(~unknown | may_be_unknown, "GEAR", f"0 to {GEARS - 1}, or nothing")
    if (highest := np.nanmax(read, initial=0)) >= GEARS:
        rows.remarks.append(f"GEAR goes up to {highest:g}: gears above {GEARS - 1} count as {GEARS - 1}")
    if "RPM" not in values or not unknown.any():
        return np.zeros(len(gear), bool), gear
    kept = rows.kinds == ""
    if not ratios_fit(values["SPEED"][kept], values["RPM"][kept]):
        rows.remarks.append("speed and engine speed do not fit the ratios that a missing GEAR is inferred from")
        return np.zeros(len(gear), bool), gear
    return unknown, np.where(
        unknown, infer_gear(values["SPEED"], values["RPM"], values.get(PEDAL, np.zeros(len(gear)))), gear
    )
