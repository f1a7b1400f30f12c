"""Onsets and alarms of one task: the one definition that thresholds, figures, curves and examples share.

An onset is the moment at which the driver begins to brake (coast): the first time of a run of true labels, plus the
task's horizon. An alarm is an episode with hysteresis: it starts at the first probability at or above the on-threshold
(once the episode has lasted `alarm_min_s`) and ends with the last one at or above the off-threshold.

An alarm foresees an onset if it rings before it, within the horizon plus LEAD_MARGIN_S, and started after the driver
last braked: an alarm left over from an earlier braking foresees nothing. An alarm that starts while the driver
already brakes carries no news and is not false. Any other alarm that foresees nothing is false.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from model.evaluation.config import EvaluationConfig
from model.evaluation.predictions import Predictions
from model.recording.times import MAX_STEP_MS

MERGE_S = 2.0
"""Runs closer than this are one event or alarm; so are those of consecutive windows at any stride."""
LEAD_MARGIN_S = 1.0
"""An alarm counts for an onset from this long before the task's horizon."""
APART_MS = 3_600_000
"""Between recordings on the joint clock."""
Times = npt.NDArray[np.int64]
"""Rising times, ms."""


class Alarm(NamedTuple):
    """One alarm, on the joint clock."""

    start_ms: int
    end_ms: int
    probability: float
    """Highest while it rings"""
    false: bool


@dataclass(frozen=True)
class Drives:
    """All windows of one task with E onsets, on one joint clock on which the recordings are far apart."""

    windows: Predictions
    t: Times
    """(W,) time of each window"""
    onset_ms: Times
    """(E,)"""
    last_action_ms: Times
    """(E,) when the driver last braked (coasted) before each onset"""
    brake_force: npt.NDArray[np.float32]
    """(E,) highest braking force of each event, share of 9.81 m/s2; NaN if unknown"""
    unseen_onset_ms: Times
    """(U,) onsets that no window precedes: they are no events, and alarms for them are not false"""
    merge_ms: int
    span_ms: int
    """How long before an onset an alarm counts for it"""
    hours: float
    km: float | None
    """None if the split lacks the speed"""

    @classmethod
    def of(cls, windows: Predictions) -> Self:
        """Find the onsets in windows that are ordered by recording and time."""
        merge = merge_ms(windows.time_ms, windows.recording)
        apart = np.ptp(windows.time_ms) + APART_MS if len(windows.time_ms) else 0
        t = windows.time_ms + windows.recording.astype(np.int64) * apart
        spans = runs(windows.labels, t, merge)
        unseen = np.isin(spans[:, 0], t[np.diff(t, prepend=-np.inf) > merge])
        onset_ms = spans[:, 0] + round(windows.horizon_s * 1000)
        action_ms = np.append(np.iinfo(np.int64).min, t[windows.going_on])
        first, last = np.searchsorted(t, spans[~unseen, 0]), np.searchsorted(t, spans[~unseen, 1], "right")
        forces = [windows.brake_force[begin:end] for begin, end in zip(first, last, strict=True)]
        seconds = np.minimum(np.diff(t), merge) / 1000 * (np.diff(windows.recording) == 0)
        metres = float((seconds * windows.speed[:-1] / 3.6).sum())
        return cls(
            windows=windows,
            t=t,
            onset_ms=onset_ms[~unseen],
            last_action_ms=action_ms[np.searchsorted(action_ms, onset_ms[~unseen]) - 1],
            brake_force=np.array([np.nanmax(f) if np.isfinite(f).any() else np.nan for f in forces], np.float32),
            unseen_onset_ms=onset_ms[unseen],
            merge_ms=merge,
            span_ms=round((windows.horizon_s + LEAD_MARGIN_S) * 1000),
            hours=driven_ms(windows.time_ms, windows.recording) / 3_600_000,
            km=metres / 1000 if np.isfinite(metres) else None,
        )

    @property
    def events(self) -> int:
        return len(self.onset_ms)

    def alarms(self, threshold: float | None, config: EvaluationConfig) -> tuple[list[Alarm], npt.NDArray[np.float64]]:
        """The alarms at an on-threshold (None: none), and each event's lead time in s (E,), NaN if it is missed."""
        alarms: list[Alarm] = []
        lead = np.full(self.events, np.nan)
        for start, end, probability in [] if threshold is None else self._episodes(threshold, config):
            ahead = start, end + self.span_ms
            near = np.arange(*np.searchsorted(self.onset_ms, ahead, "right"))
            foreseen = near[start > self.last_action_ms[near]]
            lead[foreseen] = np.fmax(lead[foreseen], (self.onset_ms[foreseen] - start) / 1000)
            active = self.windows.going_on[np.searchsorted(self.t, start)]
            unseen = np.ptp(np.searchsorted(self.unseen_onset_ms, ahead, "right")) > 0
            alarms.append(Alarm(start, end, probability, false=not (len(foreseen) or active or unseen)))
        return alarms, lead

    def _episodes(self, threshold: float, config: EvaluationConfig) -> Iterator[tuple[int, int, float]]:
        """Start and end of each alarm, and its highest probability."""
        t, p = self.t, self.windows.probabilities
        for first, last in runs(p >= threshold * config.alarm_off_share, t, self.merge_ms):
            begin, end = np.searchsorted(t, first), np.searchsorted(t, last, "right")
            on = begin + np.flatnonzero(p[begin:end] >= threshold)
            high = p[begin:end] >= threshold * config.alarm_off_share
            late = (
                begin + np.flatnonzero(high & (t[begin:end] >= t[on[0]] + config.alarm_min_s * 1000)) if len(on) else on
            )
            if len(late):
                yield int(t[late[0]]), int(last), float(p[on[0] : end].max())

    def place(self, t: int) -> tuple[int, int]:
        """The recording (index) of a moment on the joint clock, and its time there, ms."""
        row = np.searchsorted(self.t, t, "right") - 1
        return int(self.windows.recording[row]), int(t - self.t[row] + self.windows.time_ms[row])


def merge_ms(time_ms: Times, recording: npt.NDArray[np.integer]) -> int:
    """How far apart windows (W,) of any stride may be and still belong to one event or alarm."""
    steps = np.diff(time_ms)[np.diff(recording) == 0]
    return max(round(MERGE_S * 1000), int(1.5 * np.median(steps)) if len(steps) else 0)


def driven_ms(time_ms: Times, recording: npt.NDArray[np.integer]) -> int:
    """Time that windows (W,) cover, without gaps."""
    steps = np.diff(time_ms)[np.diff(recording) == 0]
    return int(np.minimum(steps, 10 * MAX_STEP_MS).sum())


def runs(yes: npt.NDArray[np.bool_], time_ms: Times, merge_ms: int) -> Times:
    """(n,2) first and last time of each run of `yes`; runs at most `merge_ms` apart are joined."""
    times = time_ms[yes]
    gaps = np.diff(times, prepend=-np.inf, append=np.inf) > merge_ms
    return np.column_stack([times[gaps[:-1]], times[gaps[1:]]])
