"""CSV logs: a column a signal, or a row a value."""

import csv
import itertools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.imports.logs.raw import Raw, steps_back, to_numbers
from model.imports.mapping import LogMapping

HEADER_WITHIN = 40
"""Lines in which the header is looked for."""
LEAST_DISTINCT = 0.05
"""Share of different cells in a column of times; several rows may share a time."""
DAY_S = 86_400.0
_UNIT = re.compile(r"^(?P<name>.*?)\s*[(\[](?P<unit>[^()\[\]]*)[)\]]$")
_DATE = re.compile(r"(?<!\d)(20\d\d)[-_.]?([01]\d)[-_.]?([0-3]\d)(?!\d)")
_TIME = re.compile(
    r"time|stamp|date|clock|seconds|^t$|^sec|^ms$|^when$|zeit|uhr|heure|temps|hora|tiempo", re.IGNORECASE
)
_ZONES = {"MESZ": 2, "CEST": 2, "MEZ": 1, "CET": 1, "BST": 1, "GMT": 0, "UTC": 0, "EST": -5, "EDT": -4, "CST": -6}
_ZONES |= {"CDT": -5, "MST": -7, "MDT": -6, "PST": -8, "PDT": -7, "JST": 9, "MSK": 3, "EET": 2, "EEST": 3}
"""Hours east of UTC of abbreviations that loggers write into times."""
_ZONE = r"\b(" + "|".join(_ZONES) + r")(?:([+-]\d\d?)(?::?(\d\d))?)?(?!\w) ?"
"""Such as MESZ, or GMT+02:00."""
_OFFSET = r"\d(?:Z|[+-]\d\d:?\d\d)$"
_UNITS_OF_TIME = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}
_LARGEST_S = 1e10
"""Times beyond are since 1970 in a smaller unit."""


@dataclass(frozen=True)
class Table:
    """The cells of a CSV as texts."""

    path: Path
    headers: list[str]
    """One that stands n times is called `name`, `name.2`, ... `name.n`."""
    columns: dict[str, npt.NDArray[np.object_]]

    def column(self, name: str) -> npt.NDArray[np.object_] | None:
        """By header, by header without its unit, or by `#n`, the n-th column. None if there is none."""
        if name in self.columns:
            return self.columns[name]
        for header in self.headers:
            if split_unit(header)[0] == name:
                return self.columns[header]
        if re.fullmatch(r"#\d+", name) and 0 < int(name[1:]) <= len(self.headers):
            return self.columns[self.headers[int(name[1:]) - 1]]
        return None

    def unit(self, name: str) -> str:
        for header in self.headers:
            if name in (header, split_unit(header)[0]):
                return split_unit(header)[1]
        return ""

    def required(self, name: str) -> npt.NDArray[np.object_]:
        found = self.column(name)
        if found is None:
            raise DataError(f"{self.path} has no column {name}: found {', '.join(self.headers[:30])}.")
        return found


def split_unit(header: str) -> tuple[str, str]:
    """A header's name and unit: `Speed (OBD)(km/h)` is Speed (OBD) in km/h."""
    match = _UNIT.match(header)
    return (match["name"], match["unit"]) if match else (header, "")


def read_table(path: Path, log: LogMapping) -> Table:
    """The whole table. A line with an open quote, or with more cells than the header, is left out."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("cp1252", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} is empty: expected a header and rows.")
    separator = log.separator or max(",;\t|", key=lambda mark: sum(line.count(mark) for line in lines[:HEADER_WITHIN]))
    rows = [_cells(line, separator) for line in lines]
    first = log.header_row - 1 if log.header_row else _header_row(rows)
    headers = _distinct(rows[first])
    width = len(headers)
    body = [row for row in rows[first + 1 :] if row and not any(cell for cell in row[width:])]
    cells = itertools.zip_longest(*((row + [""] * width)[:width] for row in body), fillvalue="")
    columns = dict(zip(headers, (np.array(column, object) for column in cells), strict=False))
    return Table(path, headers, columns or {header: np.array([], object) for header in headers})


def _cells(line: str, separator: str) -> list[str]:
    if line.count('"') % 2 or "\0" in line:
        return []
    try:
        cells = next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []
    return [cell.strip() for cell in cells]


def _header_row(rows: Sequence[Sequence[str]]) -> int:
    """The row of most names among the first; loggers write about themselves above it, and units below it."""
    names = [sum(bool(cell) and not _is_number(cell) for cell in row) for row in rows[:HEADER_WITHIN]]
    return int(np.argmax(names))


def _is_number(cell: str) -> bool:
    try:
        float(cell.replace(",", "."))
    except ValueError:
        return False
    return True


def _distinct(headers: Iterable[str]) -> list[str]:
    seen: dict[str, int] = {}
    names = []
    for header in headers:
        seen[header] = seen.get(header, 0) + 1
        names.append(header if seen[header] == 1 else f"{header}.{seen[header]}")
    while names and not names[-1]:
        names.pop()  # a separator at the line's end
    return names


def names(path: Path, log: LogMapping) -> list[str]:
    """The signals of a CSV."""
    table = read_table(path, log)
    if log.layout == "long":
        return sorted(set(table.required(log.name_column)))
    return [header for header in table.headers if header]


def read(path: Path, log: LogMapping, wanted: Sequence[str]) -> dict[str, Raw]:
    """The wanted signals that the CSV has.

    Raises:
        DataError: no table, a column of the mapping is missing, or its times cannot be read.
    """
    table = read_table(path, log)
    if log.layout == "long":
        t = times(table, log)
        which, values = table.required(log.name_column), table.required(log.value_column)
        units = table.column(log.unit_column) if log.unit_column else None
        found = {}
        for name in wanted:
            rows = np.flatnonzero(which == name)
            if len(rows):
                unit = "" if units is None else str(units[rows[0]])
                found[name] = Raw(t[rows], values[rows], unit, steps_back(t[rows]))
        return found
    t = times(table, log)
    columns = {name: table.column(name) for name in wanted}
    back = steps_back(t)
    return {name: Raw(t, column, table.unit(name), back) for name, column in columns.items() if column is not None}


def times(table: Table, log: LogMapping) -> npt.NDArray[np.float64]:
    """(N,) s since 1970, or since the log's start; NaN where a time cannot be read."""
    if log.rate_hz:
        rows = len(next(iter(table.columns.values()), ()))
        return np.arange(rows) / log.rate_hz
    name = log.time_column or _time_column(table)
    texts = table.required(name)
    numbers = to_numbers(texts, log.decimal_mark)
    if log.clock != "text" and not log.time_format and 2 * np.isfinite(numbers).sum() > len(numbers):
        return _number_times(table, log, numbers)
    moments = _text_times(texts, log, table.column(log.zone_column) if log.zone_column else None)
    if not np.isfinite(moments).any():
        example = next((text for text in texts if text), "nothing")
        raise DataError(
            f"{table.path}: times in column {name}, such as {example}, cannot be read: set time_column or time_format."
        )
    return moments


def _time_column(table: Table) -> str:
    """The first column that is named as times are and that advances.

    Raises:
        DataError: there is none.
    """
    for header in table.headers:
        texts = table.columns[header]
        if _TIME.search(header) and len(set(texts)) > LEAST_DISTINCT * len(texts):
            return header
    raise DataError(
        f"{table.path}: no column is named as times are: found {', '.join(table.headers[:12])}. Set time_column or, "
        "without times, rate_hz."
    )


def _number_times(table: Table, log: LogMapping, numbers: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    largest = float(np.nanmedian(numbers))
    fitting = (factor for factor in _UNITS_OF_TIME.values() if largest * factor < _LARGEST_S)
    t = numbers * (_UNITS_OF_TIME[log.clock_unit] if log.clock_unit else next(fitting, 1e-9))
    if log.clock == "midnight":
        day = log.day or _day_of(table.path)
        t = t + DAY_S * np.concatenate([[0], np.cumsum(np.diff(np.nan_to_num(t)) < -DAY_S / 2)])  # past midnight
        midnight = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(log.zone or "UTC"))
        return t + midnight.timestamp()
    return t


def _day_of(path: Path) -> datetime:
    match = _DATE.search(path.name)
    if not match:
        raise DataError(f"{path}: its times are since midnight, and its name holds no date: set `day` of the log.")
    return datetime(int(match[1]), int(match[2]), int(match[3]), tzinfo=UTC)


def _text_times(
    texts: npt.NDArray[np.object_], log: LogMapping, named: npt.NDArray[np.object_] | None
) -> npt.NDArray[np.float64]:
    """(N,) s since 1970 of texts: by the offset that they name, the zone that they or `named` do, else the log's."""
    plain = pd.Series(texts, dtype=object)
    form = log.time_format or "mixed"
    if plain.str.contains(_OFFSET).any():
        moments = pd.to_datetime(plain, format=form, errors="coerce", utc=True)
        return _since_1970(moments.dt.tz_localize(None))
    hours = _hours(plain if named is None else pd.Series(named, dtype=object))
    moments = pd.to_datetime(plain.str.replace(_ZONE, "", regex=True), format=form, errors="coerce")
    if hours.notna().any():
        return _since_1970(moments) - hours.bfill().ffill().to_numpy(float) * 3600
    zone = ZoneInfo(log.zone or "UTC")
    try:
        local = moments.dt.tz_localize(zone, ambiguous="infer", nonexistent="shift_forward")
    except ValueError:  # an hour that the clock shows twice, of which the log has only one
        local = moments.dt.tz_localize(zone, ambiguous=np.ones(len(moments), bool), nonexistent="shift_forward")
    return _since_1970(local.dt.tz_convert("UTC").dt.tz_localize(None))


def _hours(texts: "pd.Series[str]") -> "pd.Series[float]":
    """Hours east of UTC that texts name; NaN where they name none."""
    parts = texts.str.extract(_ZONE)
    hours = pd.to_numeric(parts[1]).fillna(0)
    minutes = pd.to_numeric(parts[2]).fillna(0) * np.where(hours < 0, -1, 1)
    return parts[0].map(_ZONES) + hours + minutes / 60


def _since_1970(moments: "pd.Series[pd.Timestamp]") -> npt.NDArray[np.float64]:
    return np.asarray((moments - pd.Timestamp(0)).dt.total_seconds(), float)
