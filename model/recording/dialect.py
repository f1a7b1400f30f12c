"""The many ways in which loggers and spreadsheets write a table: its text to cells, and what was found out about it."""

import codecs
import csv
import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from model.common.errors import DataError

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
HEADER_WITHIN = 20
"""Lines in which the header is looked for, below what a logger says of itself."""
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16's, which it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_NO_TABLES = {
    b"version https://git-lfs": ("a pointer of Git LFS", "fetch what it stands for (git lfs pull)"),
    b"PK\x03\x04": ("a zip or an office document", "export it as CSV"),
    b"\x1f\x8b": ("compressed with gzip", "unpack it"),
    b"\xd0\xcf\x11\xe0": ("an Excel workbook", "export it as CSV"),
}
_EXCEL_HINT = re.compile(r"sep=.\s*")


@dataclass(frozen=True)
class Dialect:
    """How a file is written."""

    encoding: str
    separator: str
    """comma, semicolon, tab or bar"""
    decimal_mark: str
    thousands_mark: str
    """none, comma or point"""
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


def read_cells(path: Path, spellings: Mapping[str, str], required: Sequence[str]) -> Cells:
    """Read columns of a table.

    Args:
        spellings: the columns that are read by how a header may call them, in lower case.

    Raises:
        DataError: the file is missing, empty or no text, lacks a `required` column, or has a column twice with
            different cells. Tells the separator and the columns that were found.
    """
    text, encoding = _decode(path)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    first, separator = _header(lines, spellings)
    if first is None:
        raise DataError(f"{path} is empty: expected a header and rows; copy the recording again.")
    found = _split(lines[first], separator)
    names = [spellings.get(name.lower(), "") for name in found]
    lacking = [name for name in required if name not in names]
    if lacking:
        optional = sorted(set(spellings.values()) - set(required))
        raise DataError(
            f"{path} lacks the column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}: found "
            f"{', '.join(_printable(name) for name in found[:20])}, separated by {SEPARATORS[separator]}; expected "
            f"{', '.join(required)} in its header, and may have {', '.join(optional)}."
        )
    number = np.array([n for n in range(first + 1, len(lines)) if lines[n] and not lines[n].isspace()], np.int64)
    rows, broken = _rows([lines[n] for n in number], separator, len(names))
    if lines[-1].strip() and rows and len(_split(lines[-1], separator)) < len(names):
        rows[-1] = [""] * len(names)  # cut, maybe in the midst of a number
    table = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    columns = {}
    for name in dict.fromkeys(spellings.values()):
        places = [place for place, of in enumerate(names) if of == name]
        if any(table[place] != table[places[0]] for place in places[1:]):
            raise DataError(f"{path} has the column {name} {len(places)} times, with different cells: leave one.")
        if places:
            columns[name] = _stripped(table[places[0]])
    return Cells(columns, number + 1, broken, encoding, SEPARATORS[separator])


def _header(lines: Sequence[str], spellings: Mapping[str, str]) -> tuple[int | None, str]:
    """Place and separator of the header: of the first lines the one that names most columns; None in an empty file."""
    best: tuple[int, int | None, str] = (-1, None, ",")
    filled = (n for n, line in enumerate(lines) if line.strip() and not _EXCEL_HINT.fullmatch(line))
    for place in itertools.islice(filled, HEADER_WITHIN):
        for mark in SEPARATORS:
            known = {spellings[name] for cell in _split(lines[place], mark) if (name := cell.lower()) in spellings}
            if len(known) > best[0]:
                best = len(known), place, mark
    return best[1], best[2]


def _decode(path: Path) -> tuple[str, str]:
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path} is missing: expected the recorder's telemetry; copy the whole folder.") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}): copy the whole folder.") from error
    for start, (what, advice) in _NO_TABLES.items():
        if content.startswith(start):
            raise DataError(f"{path} is {what}: {advice}.")
    encoding = next((name for mark, name in _BYTE_ORDER_MARKS.items() if content.startswith(mark)), "")
    if not encoding and (beginning := content[:1000]):  # of two bytes a letter one is 0; where power was cut both are
        zeros = [beginning[offset::2].count(0) / len(beginning) for offset in (0, 1)]
        if max(zeros) > 0.4 and min(zeros) < 0.1:
            encoding = "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    if encoding:
        return content.decode(encoding, errors="replace").removeprefix("\ufeff"), encoding
    try:
        return content.decode("utf-8-sig"), "utf-8"
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace"), "cp1252"


def _printable(name: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in name[:40])


def _split(line: str, separator: str) -> list[str]:
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:  # a cell of more than 128 kB
        return []


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
        table = [_split(line, separator) for line in whole]
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
