"""Signals of a log on their own clock, and what they say at the times of frames."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

UNITS = {
    "SPEED": {
        "km/h": 1.0,
        "kph": 1.0,
        "kmh": 1.0,
        "m/s": 3.6,
        "mps": 3.6,
        "mph": 1.609344,
        "kn": 1.852,
        "knots": 1.852,
    },
    "ACCELERATOR_POS_D": {"%": 1.0, "ratio": 100.0},
    "ENGINE_LOAD": {"%": 1.0, "ratio": 100.0},
    "RPM": {"rpm": 1.0, "1/min": 1.0},
}
"""Factors from the units of logs to those of the channels."""
NEAR_S = 0.3
"""A number counts for a frame if it was measured at most this long before or after it."""


EPOCH = 2e8
"""Seconds from here on are since 1970, fewer are since a log's start."""
LATEST = 4e9
"""Seconds since 1970 that no drive is after; clocks that say so are wrong."""


@dataclass(frozen=True)
class Signal:
    """Samples in order of time."""

    t: npt.NDArray[np.float64]
    """(N,) s, rising; since 1970 if the log's clock says so, else since the log's start"""
    values: npt.NDArray[np.float64]
    """(N,) finite; of switches 0 and 1"""

    def __post_init__(self) -> None:
        assert self.t.shape == self.values.shape

    def moved(self, seconds: float) -> "Signal":
        return Signal(self.t + seconds, self.values)


def in_order(t: npt.NDArray[np.float64], values: npt.NDArray[np.float64]) -> Signal:
    """The finite samples, sorted by time; of several at one time the last."""
    known = np.isfinite(t) & np.isfinite(values)
    t, values = t[known], values[known]
    order = np.argsort(t, kind="stable")
    t, values = t[order], values[order]
    last = np.append(np.diff(t) > 0, True)[: len(t)]
    return Signal(t[last], values[last])


def numbers_at(signal: Signal, frames: npt.NDArray[np.float64], near_s: float = NEAR_S) -> npt.NDArray[np.float64]:
    """(F,) the sample nearest to each frame's time (F,), NaN where none is within `near_s`."""
    if not len(signal.t):
        return np.full(len(frames), np.nan)
    after = np.minimum(np.searchsorted(signal.t, frames), len(signal.t) - 1)
    before = np.maximum(after - 1, 0)
    nearest = np.where(np.abs(signal.t[before] - frames) <= np.abs(signal.t[after] - frames), before, after)
    near = np.abs(signal.t[nearest] - frames) <= near_s
    return np.where(near, signal.values[nearest], np.nan)


def switches_at(
    signal: Signal, frames: npt.NDArray[np.float64], longest_s: float, near_s: float = NEAR_S
) -> npt.NDArray[np.float64]:
    """(F,) whether a switch was on at any time since the frame before: 1, 0, or NaN where that is not known.

    A pedal touched for 100 ms is a braking. The interval of a frame begins at the frame before it, but at most
    `longest_s` earlier, so that what happened in a gap is not moved to its end. Without a sample in the interval the
    nearest one within `near_s` counts.
    """
    before = np.maximum(np.concatenate([[-np.inf], frames[:-1]]), frames - longest_s)
    first = np.searchsorted(signal.t, before, side="right")
    last = np.searchsorted(signal.t, frames, side="right")
    total = np.concatenate([[0.0], np.cumsum(signal.values > 0)])
    pressed = (total[last] - total[first] > 0).astype(float)
    return np.where(last > first, pressed, numbers_at(signal, frames, near_s))


def is_since_1970(t: npt.NDArray[np.float64]) -> bool:
    """Whether times are of a clock that knows the date."""
    return len(t) > 0 and float(np.nanmedian(t)) > EPOCH
