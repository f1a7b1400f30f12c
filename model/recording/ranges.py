"""Values that cannot be: out of a channel's range, or a logger's "no answer" in the midst of others."""

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.recording.schema import CHANNELS
from model.recording.times import STEP_MS


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
