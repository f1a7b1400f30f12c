"""What a log's reader returns, and how it becomes a channel's signal."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.imports.mapping import SWITCHES, ChannelMapping
from model.imports.signals import UNITS, Signal, in_order

_ON, _OFF = ("true", "on", "yes", "pressed"), ("false", "off", "no", "released")
_NO_ANSWER = ("", "-", "--", "n/a", "na", "nan", "none", "null", "no data", "nodata", "?")


@dataclass(frozen=True)
class Raw:
    """Samples of one signal as the log has them."""

    t: npt.NDArray[np.float64]
    """(N,) s on the log's clock; NaN where it is unreadable"""
    values: npt.NDArray[Any]
    """(N,) numbers, or texts"""
    unit: str = ""
    """As the log names it."""
    steps_back: int = 0
    """Times of the log that lie before the one above."""


def steps_back(t: npt.NDArray[np.float64]) -> int:
    """How many times (N,) lie before the one above."""
    return int((np.diff(t[np.isfinite(t)]) < 0).sum())


@dataclass(frozen=True)
class Found:
    """A channel's signal, and what was left out of it."""

    signal: Signal
    source: str
    samples: int
    missing: int
    """Without a value, or with one that means that there is none."""
    out_of_range: int
    steps_back: int = 0
    """Times of the log that lie before the one above; the samples are sorted."""

    @property
    def same_time(self) -> int:
        """Samples that were left out because a later one has the same time, or because theirs is unreadable."""
        return self.samples - self.missing - self.out_of_range - len(self.signal.t)

    @classmethod
    def of(cls, t: npt.NDArray[np.float64], values: npt.NDArray[Any], source: str) -> "Found":
        """Values that need no mapping, (N,) in the channel's unit, at s since 1970."""
        values = values.astype(float)
        return cls(in_order(t, values), source, len(values), int(np.isnan(values).sum()), 0)


def find(name: str, channel: ChannelMapping, source: str, raw: Raw, decimal_mark: str = "") -> Found:
    """The signal of channel `name`.

    Raises:
        DataError: the log's unit is no unit of the channel, or no value can be read.
    """
    values, missing = _values(name, channel, raw, decimal_mark)
    if name not in SWITCHES:
        values = values * _factor(name, channel, raw.unit, source) * channel.scale + channel.shift
    lowest, highest = (
        -np.inf if channel.at_least is None else channel.at_least,
        np.inf if channel.at_most is None else channel.at_most,
    )
    wrong = (values < lowest) | (values > highest)
    signal = in_order(raw.t, np.where(wrong, np.nan, values))
    if not len(signal.t):
        raise DataError(f"{source}, mapped to {name}, has no readable value in {len(values)}.")
    return Found(signal, source, len(values), int(missing.sum()), int(wrong.sum()), raw.steps_back)


def _values(
    name: str, channel: ChannelMapping, raw: Raw, decimal_mark: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(N,) numbers, of a switch 0 and 1, NaN where missing; and (N,) where they are."""
    if raw.values.dtype.kind in "OUS":
        texts = np.array([str(value).strip() for value in raw.values], object)
        values = to_numbers(texts, decimal_mark)
        lower = np.array([text.lower() for text in texts], object)
        values[np.isin(lower, _ON)], values[np.isin(lower, _OFF)] = 1.0, 0.0
    else:
        texts, values = None, raw.values.astype(float)
        lower = None
    missing = _among(values, texts, channel.missing)
    if name in SWITCHES:
        on = _among(values, texts, channel.pressed) if channel.pressed else values != 0
        if channel.pressed_from is not None:
            on = values >= channel.pressed_from
        known = np.isfinite(values)
        if channel.pressed and lower is not None:
            known |= ~np.isin(lower, _NO_ANSWER)
        values = np.where(known, on.astype(float), np.nan)
    values = np.where(missing, np.nan, values)
    return values, ~np.isfinite(values)


def _among(
    values: npt.NDArray[np.float64], texts: npt.NDArray[np.object_] | None, wanted: list[str | float]
) -> npt.NDArray[np.bool_]:
    """(N,) whether a sample is one of `wanted`, as number or as text."""
    numbers = [float(each) for each in wanted if not isinstance(each, str)]
    among = np.isin(values, numbers)
    return among if texts is None else among | np.isin(texts, [str(each) for each in wanted])


def to_numbers(texts: npt.NDArray[np.object_], decimal_mark: str = "") -> npt.NDArray[np.float64]:
    """(N,) numbers, NaN for other texts.

    Args:
        decimal_mark: . or ,; if empty, the comma where more cells have one than a point.
    """
    if not decimal_mark:
        commas, points = (sum(text.count(mark) == 1 for text in texts) for mark in ",.")
        decimal_mark = "," if commas > points else "."
    if decimal_mark == ",":
        texts = np.array([text.replace(",", ".") for text in texts], object)
    return pd.to_numeric(pd.Series(texts, dtype=object), errors="coerce").to_numpy(float, copy=True)


def _factor(name: str, channel: ChannelMapping, unit: str, source: str) -> float:
    units = UNITS.get(name, {})
    unit = channel.unit or unit.strip().lower()
    if not unit or not units or channel.scale != 1.0:
        return 1.0 if not channel.unit else units[channel.unit]
    if unit not in units:
        raise DataError(
            f"{source}, mapped to {name}, is in {unit}: expected {', '.join(units)}; set its unit or scale."
        )
    return units[unit]
