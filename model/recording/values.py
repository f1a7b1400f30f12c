"""Numbers, booleans and missing values in the cells of a table."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.recording.dialect import Cells, ReadingConfig

MISSING = frozenset({"", "-", "--", "nan", "n/a", "na", "null", "none", "#n/a"})
"""Texts, in lower case, that say that there is no value."""
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1", "wahr"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", "falsch"), False),
}
"""In English, and as German Excel writes them. `reading.json` declares others."""
_MAY_BE_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+")


def decimal_mark(path: Path, cells: Cells, numeric: list[str], config: ReadingConfig) -> str:
    """Point or comma, as declared, else as most numbers of the file have it; never a comma where that separates.

    Raises:
        DataError: each comma may as well set thousands apart.
    """
    if config.decimal_mark or cells.separator == "comma":
        return config.decimal_mark or "."
    texts = {text for name in numeric for text in pd.unique(cells.columns[name])}
    commas = [text for text in texts if "," in text]
    if len(commas) <= sum("." in text for text in texts):
        return "."
    if all(map(_MAY_BE_THOUSANDS.fullmatch, commas)):
        raise DataError(
            f"{path}: the comma in {commas[0]!r} may be a decimal mark or set thousands apart: declare decimal_mark in "
            "reading.json."
        )
    return ","


def numbers(texts: npt.NDArray[np.object_], mark: str) -> npt.NDArray[np.float64]:
    """(N,) numbers with the decimal mark `mark`; NaN where a text is not a finite number."""
    series = pd.Series(texts, dtype=object)
    if mark == ",":
        series = series.where(~series.str.contains(".", regex=False)).str.replace(",", ".", regex=False)
    values = np.array(pd.to_numeric(series, errors="coerce"), float)
    values[np.isinf(values)] = np.nan
    return values


def booleans(
    texts: npt.NDArray[np.object_], config: ReadingConfig
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], str]:
    """(N,) values, (N,) which of them are known, and the texts that mean something."""
    meanings = BOOLEANS | dict.fromkeys(map(_plain, config.true_values), True)
    meanings |= dict.fromkeys(map(_plain, config.false_values), False)
    codes, distinct = pd.factorize(texts)
    known = {text: meanings.get(_plain(text)) for text in distinct}
    spelling = "/".join(sorted(text for text, meaning in known.items() if meaning is not None))
    value = np.array([bool(known[text]) for text in distinct] or [False])
    is_known = np.array([known[text] is not None for text in distinct] or [False])
    return value[codes], is_known[codes], spelling


def _plain(text: str) -> str:
    """A text as `BOOLEANS` has it: 1.0 as 1."""
    return re.sub(r"[.,]0+$", "", text.lower())


def missing(texts: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """(N,) texts that say that there is no value."""
    return np.array([text.lower() in MISSING for text in texts], bool)


def is_empty(texts: npt.NDArray[np.object_]) -> bool:
    """Whether no text holds a value."""
    return all(text.lower() in MISSING for text in texts)
