"""The values of a table: numbers, booleans and missing ones in its cells, and those that cannot be."""

import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.recording.dialect import Cells, ReadingConfig
from model.recording.schema import CHANNELS, STEP_MS

MISSING = frozenset({"", "-", "--", "nan", "n/a", "na", "null", "none", "#n/a"})
"""Texts, in lower case, that say that there is no value."""
BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1", "wahr"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0", "falsch"), False),
}
"""In English, and as German Excel writes them. `reading.json` declares others."""
SELECTOR = {"P": "0", "R": "0", "N": "0", "D": "", "S": "", "M": ""}
"""Positions of a selector lever as gears; a forward one leaves the gear open."""
_UNITS = r"(?i)\s*(?:km/h|kmh|kph|kilomet(?:er|re)_per_hour|rpm|1/min|revolutions_per_minute|%|percent)$"
"""The channels' units as loggers write them behind each number."""
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
    """(N,) numbers with the decimal mark `mark`, with or without their unit; NaN where a text is no finite number."""
    series = pd.Series(texts, dtype=object)
    if any(text[-1:].isalpha() or text.endswith("%") for text in texts[:10]):
        series = series.str.replace(_UNITS, "", regex=True)
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
    known = {text: meanings.get(_plain(text)) for text in pd.unique(texts)}
    spelling = "/".join(sorted(text for text, meaning in known.items() if meaning is not None))
    value = pd.Series(texts, dtype=object).map(known)
    return value.eq(True).to_numpy(bool), value.notna().to_numpy(bool), spelling


def _plain(text: str) -> str:
    """A text as `BOOLEANS` has it: 1.0 as 1."""
    return re.sub(r"[.,]0+$", "", text.lower())


def missing(texts: npt.NDArray[np.object_]) -> npt.NDArray[np.bool_]:
    """(N,) texts that say that there is no value."""
    return np.array([text.lower() in MISSING for text in texts], bool)


def held(texts: npt.NDArray[np.object_], t: npt.NDArray[np.int64], limit_ms: float) -> npt.NDArray[np.object_]:
    """(N,) texts, where an empty one becomes the last that is not empty, if that is not older than the limit."""
    filled = texts != ""
    last = np.maximum.accumulate(np.where(filled, np.arange(len(texts)), 0))
    return np.where(filled | (np.abs(t - t[last]) > limit_ms), texts, texts[last])


def within_range(table: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int], str]:
    """The rows without values that cannot be, how many others there were of each kind, and an example of range."""
    possible, answered = np.ones(len(table), bool), np.ones(len(table), bool)
    most, example = 0, ""
    for name in (name for name in CHANNELS if name in table):
        channel = CHANNELS[name]
        if channel.plausible:
            within = table[name].between(*channel.plausible).to_numpy()
            possible &= within
            if (count := int((~within).sum())) > most:
                low, high = channel.plausible
                reach = f"from {table[name].min():g} to {table[name].max():g}"
                most, example = count, f"{name} goes {reach}, beyond {low:g} to {high:g} {channel.unit}"
        if channel.sentinel is not None and channel.fastest is not None:
            answered &= ~_contradicted(table, name, channel.sentinel, channel.fastest)
    counts = {"out_of_range": int((~possible).sum()), "sentinels": int((possible & ~answered).sum())}
    return table[possible & answered], counts, example


def _contradicted(table: pd.DataFrame, name: str, sentinel: float, fastest: float) -> npt.NDArray[np.bool_]:
    """(N,) rows that hold the sentinel of a channel, out of reach of the nearest other value at `fastest` a second."""
    said = (table[name] == sentinel).to_numpy()
    if not said.any():
        return said
    others = table[name].mask(said)
    moments = table["t"].astype(float).mask(said)
    contradicted = np.zeros(len(table), bool)
    for value, moment in ((others.ffill(), moments.ffill()), (others.bfill(), moments.bfill())):
        seconds = ((table["t"] - moment).abs() / 1000).clip(lower=STEP_MS / 1000)
        contradicted |= ((sentinel - value).abs() > fastest * seconds).to_numpy()
    return said & contradicted
