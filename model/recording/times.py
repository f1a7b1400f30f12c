"""Times of a recording's rows: their texts, their rate, thinning to 2 Hz, and clocks that were set back."""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from model.common.errors import DataError
from model.recording.schema import STEP_MS

MAX_STEP_MS = 601
"""Two rows further apart than this have a gap between them."""
FASTEST_STEP_MS = 425
"""Rows that follow each other faster are thinned out to 2 Hz."""
ROWS_FOR_A_RATE = 10
SHARED_SECONDS = 0.3
"""Of rows at several Hz whose times have no fractions at least this share have the time of the row before."""
SLOT = "slot"
"""The column of the half seconds that rows stand for."""

_ISO_TIME = re.compile(
    r"(\d{4}-\d{2}-\d{2})[ T_](\d{2})[:-](\d{2})[:-](\d{2})"
    r"(?:(?!(?<=T\d\d:\d\d:\d\d)-\d{4}$)[.,-](\d{1,6}))?"  # -0500 right after ISO 8601's time is an offset
    r"(?:Z|[+-]\d{2}:?\d{2})?",
    re.ASCII,
)
_EPOCH = re.compile(r"\d{10}(?:\.\d{1,6})?|\d{13}", re.ASCII)
"""Seconds, or milliseconds, since 1970."""


def plain_time(text: str) -> str:
    """A moment as recorders spell it, `YYYY-MM-DD HH-MM-SS-fraction`, from ISO 8601's spellings; else the text.

    The zone is left out, as the recorder's clock counts, and so are zeros at the end of the fraction but one: files and
    rows that spell one moment differently belong together.
    """
    match = _ISO_TIME.fullmatch(text)
    return _plain(match, 1) if match else text


def _plain(match: re.Match[str], fraction_digits: int) -> str:
    fraction = (match[5] or "").rjust(fraction_digits, "0")
    return f"{match[1]} {match[2]}-{match[3]}-{match[4]}-{fraction.rstrip('0') or '0'}"


def read_times(
    texts: npt.NDArray[np.object_], time_format: str = ""
) -> tuple[npt.NDArray[np.object_], npt.NDArray[np.int64], bool]:
    """(N,) `plain_time` of each text and (N,) its milliseconds since 1970, -1 where it is invalid.

    The last result says whether fractions are read as milliseconds without leading zeros (3 and 503 for .003 and .503):
    their lengths differ, and the times then follow each other in more even steps than with decimals.

    Args:
        time_format: of the texts, in strftime codes; their fractions are then spelled with as few digits as they need.
    """
    if time_format:
        moments = pd.to_datetime(pd.Series(texts, dtype=object), format=time_format, errors="coerce")
        spelled = [text if pd.isna(moment) else _spelled(moment) for text, moment in zip(texts, moments, strict=True)]
        return np.array(spelled, object), _milliseconds(moments), False
    matches = [_ISO_TIME.fullmatch(text) for text in texts]
    t, digits = _parsed(matches, fraction_digits=1), 1
    lengths = {len(match[5] or "") for match in matches if match}
    if len(lengths) > 1 and max(lengths) == 3:
        filled = _parsed(matches, fraction_digits=3)
        if _unevenness(filled) < _unevenness(t):
            t, digits = filled, 3
    for row in (row for row, match in enumerate(matches) if not match and _EPOCH.fullmatch(texts[row])):
        t[row] = round(float(texts[row]) * (1000 if len(texts[row].partition(".")[0]) == 10 else 1))
    plain = [_plain(match, digits) if match else text for match, text in zip(matches, texts, strict=True)]
    return np.array(plain, object), t, digits == 3


def _unevenness(t: npt.NDArray[np.int64]) -> float:
    """How far steps differ from the usual one, ms in all; of times in any order, such as those of sorted file names."""
    steps = np.diff(np.sort(t[t >= 0]))
    return float(np.abs(steps - np.median(steps)).sum()) if len(steps) else 0.0


def _spelled(moment: datetime) -> str:
    return plain_time(f"{moment:%Y-%m-%d %H-%M-%S-%f}")


def _parsed(matches: Sequence[re.Match[str] | None], fraction_digits: int) -> npt.NDArray[np.int64]:
    """(N,) milliseconds; fractions are filled up from the left to as many digits."""
    texts = [
        f"{match[1]}T{match[2]}:{match[3]}:{match[4]}.{(match[5] or '').rjust(fraction_digits, '0')}" if match else ""
        for match in matches
    ]
    return _milliseconds(pd.to_datetime(pd.Series(texts, dtype=object), format="ISO8601", errors="coerce"))


def _milliseconds(moments: pd.Series) -> npt.NDArray[np.int64]:
    milliseconds = moments.astype("datetime64[ms]").astype("int64").to_numpy()
    return np.where(moments.isna().to_numpy(), -1, milliseconds)


def separated_times(telemetry: pd.DataFrame, column: str = "t") -> npt.NDArray[np.int64]:
    """(N,) times, or slots, in ms of `read_telemetry`'s rows, rising throughout: segments are moved far apart.

    Look up rows with times, and find gaps with slots.
    """
    t = telemetry[column].to_numpy(np.int64)
    if "segment" not in telemetry or not len(t):
        return t
    span = int(t.max() - t.min()) + 3_600_000
    return np.asarray(t + telemetry["segment"].to_numpy(np.int64) * span)


def recorded_step(path: Path, t: npt.NDArray[np.int64]) -> float | None:
    """The usual step between rows in ms; None if there are too few rows.

    Raises:
        DataError: even the quicker tenth of the steps is too long for 2 Hz.
    """
    steps = np.diff(t)
    steps = steps[steps > 0]
    if len(steps) < ROWS_FOR_A_RATE:
        return None
    usual = float(np.median(steps))
    if np.quantile(steps, 0.1) > MAX_STEP_MS:
        if not (t % 1000).any() and len(steps) < len(t) * (1 - SHARED_SECONDS):
            raise DataError(
                f"{path} has times in whole seconds that rows share: expected fractions, as {len(t)} rows have only "
                f"{len(steps) + 1} different times. Record with fractions, or leave the drive out."
            )
        raise DataError(
            f"{path} is recorded at {1000 / usual:.2g} Hz, a row every {usual / 1000:.2g} s: expected 2 Hz or more, as "
            "windows and labels are of half seconds. Record with a shorter interval, or leave the drive out."
        )
    return usual


def nearest_rows(t: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """For rising times t, the row nearest to each wanted time; of two as near the earlier."""
    after = np.minimum(np.searchsorted(t, wanted), len(t) - 1)
    before = np.maximum(after - 1, 0)
    return np.where(np.abs(t[before] - wanted) <= np.abs(t[after] - wanted), before, after)


def two_hertz(table: pd.DataFrame, step: float) -> pd.DataFrame:
    """Of rows every `step` ms the nearest to every half second of each segment, which becomes their slot."""
    parts = []
    for _, part in table.groupby("segment"):
        t = part["t"].to_numpy()
        grid = np.arange(t[0], t[-1] + step / 2, STEP_MS).astype(np.int64)
        nearest = nearest_rows(t, grid)
        near = np.abs(t[nearest] - grid) <= STEP_MS // 2
        row, first = np.unique(nearest[near], return_index=True)
        parts.append(part.iloc[row].assign(**{SLOT: grid[near][first]}))
    return pd.concat(parts, ignore_index=True)
