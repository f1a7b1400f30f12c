"""How a recording's telemetry is written: recognised where that is certain, declared in `reading.json` elsewhere."""

import codecs
import csv
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from model.common.config import Config
from model.common.errors import DataError
from model.recording.schema import BRAKE, CHANNELS, PEDAL, REQUIRED_COLUMNS, SPELLINGS, TIME

SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
DECIMAL_MARKS = {".": "point", ",": "comma"}
HEADER_WITHIN = 20
"""Lines in which the header is looked for: loggers write about themselves above it."""
MOST_UNREADABLE = 0.05
MAY_BE_MISSING = (PEDAL, BRAKE)
"""Required channels that imported recordings may lack, and others that declare it: labels are then unknown."""


class ReadingConfig(Config):
    """How a recording's telemetry is read. `reading.json` beside it keeps all but `most_unreadable`."""

    most_unreadable: float = Field(
        MOST_UNREADABLE,
        ge=0,
        le=1,
        description="Share of telemetry rows, besides the recorder's own fault rows, that may be unreadable and are "
        "dropped; a recording with more is refused. One row always may",
    )
    pedal_range: list[float] = Field(
        [],
        description="Values of ACCELERATOR_POS_D with the pedal at rest and fully pressed, such as [14.12, 81.56] or "
        "[0, 255]: it is rescaled to 0 to 100 %. Empty: as declared before; [0, 100]: as recorded. Like the options "
        "below, it is kept in the recording's reading.json and used whenever the recording is read",
    )
    encoding: str = Field(
        "", description="Character encoding, such as cp1252. Empty: UTF-8, or UTF-16 with a byte order mark"
    )
    separator: str = Field("", max_length=1, description="Character between columns. Empty: as the header shows")
    decimal_mark: str = Field(
        "", description="Decimal mark of numbers, point (.) or comma (,). Empty: as most numbers of the file show"
    )
    time_format: str = Field(
        "",
        description="Format of Time in strftime codes, such as %d.%m.%Y %H:%M:%S.%f. Empty: YYYY-MM-DD "
        "HH-MM-SS[-fraction], or ISO 8601 without a time zone",
    )
    columns: dict[str, str] = Field(
        {}, description='Headers of channels, where they differ from the names, such as {"SPEED": "Vehicle speed"}'
    )
    factors: dict[str, float] = Field(
        {}, description='Factors by channel from the file\'s unit to ours, such as {"SPEED": 1.609344} for mph'
    )
    true_values: list[str] = Field([], description="Texts of switches, such as BRAKE_SIGNAL, that mean on")
    false_values: list[str] = Field([], description="Texts of switches that mean off")
    missing_values: list[str] = Field(
        [], description="Texts in any column that mean that there is no value, besides empty cells"
    )
    hold_s: float = Field(
        3.0,
        ge=0,
        le=60,
        description="Longest time (s) that the last value stands for empty cells after it, as of a slowly polled "
        "channel. Never for SPEED, ACCELERATOR_POS_D and switches",
    )
    missing_channels: list[str] = Field(
        [],
        description="Required channels that the recorder does not have, ACCELERATOR_POS_D or BRAKE_SIGNAL: without "
        "them, labels are unknown. Imported recordings need not declare them",
    )
    drivetrain: Literal["", "combustion", "hybrid", "electric", "unknown"] = Field(
        "", description="Drivetrain of the car. Empty: as the import says; data sets do not mix drivetrains"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        numeric = [name for name, channel in CHANNELS.items() if channel.kind == "number"]
        if self.pedal_range and not (
            len(self.pedal_range) == 2 and all(map(math.isfinite, self.pedal_range)) and len(set(self.pedal_range)) == 2
        ):
            raise DataError(
                f"pedal_range {self.pedal_range}: expected two different numbers, at rest and fully pressed."
            )
        if self.decimal_mark not in ("", *DECIMAL_MARKS):
            raise DataError(f"decimal_mark {self.decimal_mark!r}: expected . or ,.")
        if unknown := set(self.missing_channels) - set(MAY_BE_MISSING):
            raise DataError(f"missing_channels {', '.join(unknown)}: expected some of {', '.join(MAY_BE_MISSING)}.")
        if unknown := self.columns.keys() - {TIME, *CHANNELS}:
            raise DataError(f"columns {', '.join(unknown)}: expected headers of {TIME}, {', '.join(CHANNELS)}.")
        if any(name not in numeric or not math.isfinite(factor) or not factor for name, factor in self.factors.items()):
            raise DataError(f"factors {self.factors}: expected numbers other than 0 for some of {', '.join(numeric)}.")
        try:
            codecs.lookup(self.encoding or "utf-8")
            datetime.strptime(datetime(2024, 5, 31).strftime(self.time_format), self.time_format)
        except (LookupError, ValueError) as error:
            raise DataError(f"encoding or time_format: {error}.") from error
        return self

    def declared(self) -> dict[str, Any]:
        """The content of `reading.json`: the options that are set."""
        return self.model_dump(exclude_defaults=True, exclude={"most_unreadable"})


@dataclass(frozen=True)
class Dialect:
    """How a file is written."""

    encoding: str
    separator: str
    """comma, semicolon, tab or bar, or the declared character"""
    decimal_mark: str
    """point or comma"""
    booleans: str
    """The texts in the file, such as False/True."""
    rate_hz: float | None
    """Of the rows as recorded; None if they are too few."""


@dataclass(frozen=True)
class Cells:
    """The known columns of a table as texts; N rows, one a line that is not blank."""

    columns: dict[str, npt.NDArray[np.object_]]
    line: npt.NDArray[np.int64]
    """(N,) line of each row, from 1"""
    faults: npt.NDArray[np.object_]
    """(N,) unreadable (an open quote, a NUL, or too many cells: all are empty), headers (the header again, as after a
    restart of the logger), or empty"""
    encoding: str
    separator: str


def read_cells(path: Path, config: ReadingConfig) -> Cells:
    """Read the columns of the channels from a table.

    Raises:
        DataError: the file is missing, empty or not a text table, lacks a required column, or has a column twice with
            different cells. Names the separator and the columns that it has.
    """
    text, encoding = _decode(path, config.encoding)
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    names_of = {spelling: name for spelling, name in SPELLINGS.items() if name not in config.columns}
    names_of |= {header.strip().lower(): name for name, header in config.columns.items()}
    first, separator = _header(path, lines, names_of, config.separator or "".join(SEPARATORS))
    headers = _split(lines[first], separator)
    names = [names_of.get(header.lower(), "") for header in headers]
    _check_columns(path, headers, names, separator, config)
    numbers = [number for number in range(first + 1, len(lines)) if lines[number] and not lines[number].isspace()]
    empty = [""] * len(names)
    rows = [_row(lines[number], separator, len(names)) for number in numbers]
    if lines[-1].strip() and numbers and len(_split(lines[-1], separator)) < len(names):
        rows[-1] = empty  # cut off, perhaps in the middle of a number
    missing = frozenset(config.missing_values)
    table = [["" if cell in missing else cell for cell in row or empty] for row in rows]
    texts = np.array(table, object).reshape(len(rows), len(names))
    for index, name in enumerate(names):
        if name and (texts[:, index] != texts[:, names.index(name)]).any():
            raise DataError(f"{path} has the column {name} more than once, with different cells: keep one.")
    header_again = [lines[number].strip() == lines[first].strip() for number in numbers]
    return Cells(
        columns={name: texts[:, index] for index, name in enumerate(names) if name},
        line=np.array(numbers, np.int64) + 1,
        faults=np.where(header_again, "headers", np.where([row is None for row in rows], "unreadable", "")).astype(
            object
        ),
        encoding=encoding,
        separator=SEPARATORS.get(separator, separator),
    )


def _decode(path: Path, declared: str) -> tuple[str, str]:
    """The file's text and its encoding."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path} cannot be read ({error.strerror}): expected the recorder's telemetry; copy the whole folder."
        ) from error
    if not declared and content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        declared = "utf-16"
    try:
        return content.decode(declared or "utf-8-sig"), declared or "utf-8"
    except UnicodeDecodeError:
        declared = declared or "cp1252"  # the channels' cells are ASCII, which most encodings have in common
    return content.decode(declared, errors="replace"), declared


def _header(path: Path, lines: Sequence[str], names_of: Mapping[str, str], separators: str) -> tuple[int, str]:
    """Line and separator of the header: of the first lines the one that names most columns."""
    filled = (n for n, line in enumerate(lines) if line.strip())
    candidates = list(itertools.product(itertools.islice(filled, HEADER_WITHIN), separators))
    if not candidates:
        raise DataError(f"{path} is empty: expected a header and rows; copy the recording again.")
    return max(candidates, key=lambda at: len(names_of.keys() & {cell.lower() for cell in _split(lines[at[0]], at[1])}))


def _check_columns(
    path: Path, headers: Sequence[str], names: Sequence[str], separator: str, config: ReadingConfig
) -> None:
    if missing := [name for name in REQUIRED_COLUMNS if name not in (*names, *config.missing_channels)]:
        shown = ("".join(c if c.isprintable() else "?" for c in header[:40]) for header in headers[:12])
        raise DataError(
            f"{path} lacks the column{'s' if len(missing) > 1 else ''} {', '.join(missing)}: found {', '.join(shown)}, "
            f"separated by {SEPARATORS.get(separator, separator)}. Expected {', '.join(REQUIRED_COLUMNS)} in its "
            "header; declare other headers, a separator, an encoding or missing_channels in reading.json."
        )


def _split(line: str, separator: str) -> list[str]:
    try:
        return [cell.strip() for cell in next(csv.reader([line], delimiter=separator), [])]
    except csv.Error:  # a cell of more than 128 kB
        return []


def _row(line: str, separator: str, width: int) -> list[str] | None:
    """The cells of a line, filled up to `width`; None if it is broken.

    Each line is read for itself: a quote without its end costs a row, not the rest of the file.
    """
    if line.count('"') % 2 or "\0" in line:
        return None
    cells = _split(line, separator)
    return None if any(cells[width:]) else (cells + [""] * width)[:width]
