"""Numbers and booleans as loggers, spreadsheets and countries write them."""

import re
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

MISSING = frozenset({"", "-", "--", "nan", "n/a", "na", "null", "none", "#n/a", "#nv"})
"""Texts, in lower case, that say that there is no value."""
BOOLEANS = {
    **dict.fromkeys(("true", "1", "t", "y", "yes", "on", "pressed", "wahr", "ja", "j", "ein"), True),
    **dict.fromkeys(("vrai", "oui", "verdadero", "vero", "si", "waar"), True),
    **dict.fromkeys(("false", "0", "f", "n", "no", "off", "released", "falsch", "nein", "aus"), False),
    **dict.fromkeys(("faux", "non", "falso", "onwaar", "nee"), False),
}
MARKS = {"comma": ",", "point": "."}
_OTHER = {"comma": ".", "point": ","}
_SPACED = re.compile(r"(?<=\d)[ '\u2019\u00a0\u202f](?=\d{3}(?!\d))")
_GROUPED = {
    mark: re.compile(rf"[+-]?[1-9]\d{{0,2}}(?:\{_OTHER[mark]}\d{{3}})+(?:\{MARKS[mark]}\d+)?") for mark in MARKS
}
"""Thousands set apart by the mark that is not the decimal one."""


def decimal_mark(columns: Iterable[npt.NDArray[np.object_]]) -> str:
    """comma or point, as most of the texts say that leave no doubt; empty if none does, as 1,699 and 1.699 do not."""
    votes = {"comma": 0, "point": 0}
    for text in {text for cells in columns for text in pd.unique(cells) if "," in text or "." in text}:
        comma, point = text.rfind(","), text.rfind(".")
        if comma >= 0 and point >= 0:
            votes["comma" if comma > point else "point"] += 1
        else:
            mark = "comma" if comma >= 0 else "point"
            if text.count(MARKS[mark]) > 1:
                votes["point" if mark == "comma" else "comma"] += 1
            elif not _GROUPED["point" if mark == "comma" else "comma"].fullmatch(text):
                votes[mark] += 1
    return max(votes, key=lambda mark: votes[mark]) if any(votes.values()) else ""


def has_thousands(columns: Iterable[npt.NDArray[np.object_]], decimal: str) -> bool:
    """Whether thousands are set apart by a comma or a point."""
    return any(_GROUPED[decimal].fullmatch(text) for cells in columns for text in pd.unique(cells))


def numbers(cells: npt.NDArray[np.object_], decimal: str) -> npt.NDArray[np.float64]:
    """(N,) numbers, whose `decimal` mark is comma or point; NaN where a cell holds none, or an infinite one."""
    values = np.array(pd.to_numeric(pd.Series(cells, dtype=object), errors="coerce"), float)
    others = np.flatnonzero(np.isnan(values) | (decimal == "comma"))
    if len(others):
        codes, texts = pd.factorize(cells[others])
        plain = [_plain(text, decimal) for text in texts]
        values[others] = np.array(pd.to_numeric(pd.Series(plain, dtype=object), errors="coerce"), float)[codes]
    values[np.isinf(values)] = np.nan
    return values


def _plain(text: str, decimal: str) -> str:
    """A number as a program would write it."""
    text = _SPACED.sub("", text.replace("\u2212", "-"))
    if _GROUPED[decimal].fullmatch(text):
        text = text.replace(_OTHER[decimal], "")
    return text.replace(",", ".")


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


def is_missing(cells: npt.NDArray[np.object_], besides: npt.NDArray[np.bool_]) -> bool:
    """Whether no cell has a value, those of the rows `besides` (N,) apart."""
    return all(text.lower() in MISSING for text, apart in zip(cells, besides, strict=True) if not apart)


def _boolean(text: str) -> bool | None:
    if (meaning := BOOLEANS.get(text.lower())) is not None:
        return meaning
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return bool(number) if number in (0, 1) else None
