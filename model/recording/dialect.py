"""The many ways in which loggers and spreadsheets write a table: its text to cells, and what was found out about it."""

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
MISSING = frozenset({"", "-", "--", "nan", "n/a", "na", "null", "none", "#n/a", "#nv"})
"""Texts, in lower case, that say that there is no value."""
BOOLEANS = {
    **dict.fromkeys(("true", "1", "wahr", "vrai", "verdadero", "vero", "waar", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "falsch", "faux", "falso", "onwaar", "no", "off"), False),
}
_EXCEL_HINT = re.compile(r"sep=.\s*")


@dataclass(frozen=True)
class Dialect:
    """How a file is written."""

    encoding: str
    separator: str
    """comma, semicolon, tab or bar"""
    decimal_mark: str
    booleans: str
    """The texts found, such as False/True."""
    rate_hz: float | None = None
    """Of the rows as recorded; None if there are too few to tell."""
    time_base: str = "local time of the recorder"


@dataclass(frozen=True)
class Cells:
    """The columns of a table as texts, a row a line that is not blank."""

    columns: dict[str, npt.NDArray[np.object_]]
    line: npt.NDArray[np.int64]
    """(N,) line of each row, from 1"""
    broken: npt.NDArray[np.bool_]
    """(N,) rows that are no row of this table: a quote without its end, a NUL, too many cells"""
    encoding: str
    separator: str


def read_cells(path: Path, wanted: Sequence[str], required: Sequence[str]) -> Cells:
    """Read the `wanted` columns of a table, those that it has.

    Raises:
        DataError: the file is missing, empty or no text, lacks a `required` column, or has a wanted one twice with
            different cells. Tells the separator and the columns that were found.
    """
    text, encoding = _decode(path)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), None)
    if first is None:
        raise DataError(f"{path} is empty: expected a header and rows; copy the recording again.")
    if _EXCEL_HINT.fullmatch(lines[first]):
        first += 1
    header = lines[first]
    separator = max(SEPARATORS, key=lambda mark: len(set(_split(header, mark)) & set(wanted)))
    names = _split(header, separator)
    lacking = [name for name in required if name not in names]
    if lacking:
        raise DataError(
            f"{path} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}: found "
            f"{', '.join(name[:40] for name in names[:20])}, separated by {SEPARATORS[separator]}; expected "
            f"{', '.join(required)} in its header, and may have {', '.join(w for w in wanted if w not in required)}."
        )
    number = np.array([n for n in range(first + 1, len(lines)) if lines[n] and not lines[n].isspace()], np.int64)
    rows, broken = _rows([lines[n] for n in number], separator, len(names))
    if lines[-1].strip() and rows and len(_split(lines[-1], separator)) < len(names):
        rows[-1] = [""] * len(names)  # cut, maybe in the midst of a number
    table = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    columns = {}
    for name in wanted:
        places = [place for place, found in enumerate(names) if found == name]
        if any(table[place] != table[places[0]] for place in places[1:]):
            raise DataError(f"{path} has the column {name} {len(places)} times, with different cells: leave one.")
        if places:
            columns[name] = _stripped(table[places[0]])
    return Cells(columns, number + 1, broken, encoding, SEPARATORS[separator])


def _decode(path: Path) -> tuple[str, str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected the recorder's telemetry; copy the whole folder.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): copy the whole folder.") from error
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace"), "utf-16"
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "cp1252"


def _split(line: str, separator: str) -> list[str]:
    return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]


def _rows(lines: list[str], separator: str, width: int) -> tuple[list[list[str]], npt.NDArray[np.bool_]]:
    """Each line's cells, filled up to `width`; and which lines are broken, whose cells are empty.

    A line is read for itself: a quote without its end costs a row, not the rest of the file.
    """
    broken = np.array([line.count('"') % 2 == 1 or "\0" in line for line in lines], bool)
    whole = [line for line, bad in zip(lines, broken, strict=True) if not bad] if broken.any() else lines
    try:
        table = list(csv.reader(whole, delimiter=separator))
    except csv.Error:  # a cell of more than 128 kB
        table = []
    if len(table) != len(whole):  # a quote took several lines for one
        table = [[] if len(line) > csv.field_size_limit() else _split(line, separator) for line in whole]
    parsed = iter(table)
    rows = []
    for index, bad in enumerate(broken.tolist()):
        row = [] if bad else next(parsed)
        if len(row) != width:
            extra = row[width:]
            broken[index] |= any(cell.strip() for cell in extra)
            row = [""] * width if broken[index] else (row + [""] * width)[:width]
        rows.append(row)
    return rows, broken


def _stripped(cells: Sequence[str]) -> npt.NDArray[np.object_]:
    return np.array([cell.strip() for cell in cells], object)


def has_decimal_commas(columns: Sequence[npt.NDArray[np.object_]]) -> bool:
    """Whether commas are decimal marks: more cells have one than have a point. If not, they are of thousands."""
    commas = sum("," in cell for cells in columns for cell in cells)
    return commas > 0 and commas > sum("." in cell for cells in columns for cell in cells)


def numbers(cells: npt.NDArray[np.object_], decimal_commas: bool) -> npt.NDArray[np.float64]:
    """(N,) numbers; NaN where a cell holds none, an infinite one, or one with marks of thousands."""
    if decimal_commas:
        cells = np.array(["" if "." in cell else cell.replace(",", ".") for cell in cells], object)
    values = np.array(pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce"), float)
    values[np.isinf(values)] = np.nan
    return values


def booleans(cells: npt.NDArray[np.object_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], str]:
    """(N,) values, (N,) which of them are known, and the texts found that mean something."""
    codes, texts = pd.factorize(cells)
    meanings = [_boolean(text) for text in texts]
    value = np.array([bool(meaning) for meaning in meanings] or [False])
    known = np.array([meaning is not None for meaning in meanings] or [False])
    spelling = "/".join(sorted(text for text, meaning in zip(texts, meanings, strict=True) if meaning is not None))
    return value[codes], known[codes], spelling


def missing(cells: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """(N,) cells that say that there is no value."""
    codes, texts = pd.factorize(cells)
    return np.array([text.lower() in MISSING for text in texts] or [False])[codes]


def _boolean(text: str) -> bool | None:
    if (meaning := BOOLEANS.get(text.lower())) is not None:
        return meaning
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return bool(number) if number in (0, 1) else None
