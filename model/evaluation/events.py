"""Onsets and alarms of one task: the one definition that thresholds, figures, curves and examples share.

An onset is the moment at which the driver begins to brake (coast): the first time of a run of true labels, plus the
task's horizon. An alarm is an episode with hysteresis: it starts at the first probability at or above the on-threshold
(once the episode has lasted `alarm_min_s`) and ends with the last one at or above the off-threshold.

An alarm foresees an onset if it rings before it, within the horizon plus LEAD_MARGIN_S, and started after the driver
last braked: an alarm left over from an earlier braking foresees nothing. An alarm that starts while the driver
already brakes carries no news and is not false. Any other alarm that foresees nothing is false.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from model.evaluation.config import EvaluationConfig
from model.evaluation.predictions import TaskWindows
from model.recording.times import MAX_STEP_MS

MERGE_S = 2.0
"""Runs closer than this are one event or alarm; so are those of consecutive windows at any stride."""
LEAD_MARGIN_S = 1.0
"""An alarm counts for an onset from this long before the task's horizon."""
_NEVER = np.iinfo(np.int64).min
Times = npt.NDArray[np.int64]
"""Times of a recording, ms."""


@dataclass(frozen=True)
class Drive:
    """The windows of one task in one recording, with the onsets in them."""

    recording: int
    """Index into the recordings of the split"""
    windows: TaskWindows
    onset_ms: Times
    """(E,)"""
    last_action_ms: Times
    """(E,) when the driver last braked (coasted) before each onset; _NEVER if never"""
    brake_force: npt.NDArray[np.float32]
    """(E,) highest braking force of each event, share of 9.81 m/s2; NaN if unknown"""
    unseen_onset_ms: Times
    """(U,) onsets that no window precedes: they are no events, and alarms for them are not false"""


@dataclass(frozen=True)
class Alarm:
    """One alarm."""

    drive: Drive
    start_ms: int
    end_ms: int
    probability: float
    """Highest while it rings"""
    false: bool


@dataclass(frozen=True)
class Drives:
    """All windows of one task by recording."""

    drives: list[Drive]
    merge_ms: int
    horizon_s: float
    hours: float
    km: float | None
    """None if the split lacks the speed"""

    @classmethod
    def of(cls, windows: TaskWindows) -> Self:
        """Find the onsets."""
        merge = merge_ms(windows.time_ms, windows.recording)
        numbers = np.unique(windows.recording).tolist()
        parts = [windows.chosen(windows.recording == number) for number in numbers]
        metres = sum(_metres(part, merge) for part in parts)
        return cls(
            drives=[_drive(number, part, merge) for number, part in zip(numbers, parts, strict=True)],
            merge_ms=merge,
            horizon_s=windows.horizon_s,
            hours=driven_ms(windows.time_ms, windows.recording) / 3_600_000,
            km=metres / 1000 if np.isfinite(metres) else None,
        )

    @property
    def span_ms(self) -> int:
        """How long before an onset an alarm counts for it."""
        return round((self.horizon_s + LEAD_MARGIN_S) * 1000)

    @property
    def events(self) -> int:
        return sum(len(drive.onset_ms) for drive in self.drives)

    @property
    def brake_force(self) -> npt.NDArray[np.float32]:
        """(E,) of all events, by recording and time."""
        return np.concatenate([np.empty(0, np.float32), *(drive.brake_force for drive in self.drives)])

    def alarms(self, threshold: float | None, config: EvaluationConfig) -> tuple[list[Alarm], npt.NDArray[np.float64]]:
        """The alarms at an on-threshold (None: none), and each event's lead time in s (E,), NaN if it is missed."""
        alarms: list[Alarm] = []
        leads = [np.empty(0)]
        for drive in self.drives:
            onset, unseen, windows = drive.onset_ms, drive.unseen_onset_ms, drive.windows
            lead = np.full(len(onset), np.nan)
            episodes = [] if threshold is None else _episodes(windows, threshold, self.merge_ms, config)
            for start, end, probability in episodes:
                foreseen = (start < onset) & (start > drive.last_action_ms) & (end >= onset - self.span_ms)
                lead[foreseen] = np.fmax(lead[foreseen], (onset[foreseen] - start) / 1000)
                active = windows.going_on[np.searchsorted(windows.time_ms, start)]
                excused = active or ((start < unseen) & (end >= unseen - self.span_ms)).any()
                alarms.append(Alarm(drive, start, end, probability, false=not (foreseen.any() or excused)))
            leads.append(lead)
        return alarms, np.concatenate(leads)


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
    if len(times) == 0:
        return np.empty((0, 2), np.int64)
    cuts = np.flatnonzero(np.diff(times) > merge_ms)
    return np.column_stack([times[np.concatenate([[0], cuts + 1])], times[np.append(cuts, len(times) - 1)]])


def _drive(number: int, windows: TaskWindows, merge: int) -> Drive:
    t, horizon = windows.time_ms, round(windows.horizon_s * 1000)
    first_of_segment = t[np.concatenate([[True], np.diff(t) > merge])]
    spans = runs(windows.labels, t, merge)
    unseen = np.isin(spans[:, 0], first_of_segment)
    onset_ms = spans[~unseen, 0] + horizon
    last_action = [t[windows.going_on & (t < onset)].max(initial=_NEVER) for onset in onset_ms]
    forces = [windows.brake_force[(t >= first) & (t <= last)] for first, last in spans[~unseen]]
    highest = [np.nanmax(force) if np.isfinite(force).any() else np.nan for force in forces]
    return Drive(
        recording=number,
        windows=windows,
        onset_ms=onset_ms,
        last_action_ms=np.array(last_action, np.int64),
        brake_force=np.array(highest, np.float32),
        unseen_onset_ms=spans[unseen, 0] + horizon,
    )


def _metres(windows: TaskWindows, merge: int) -> float:
    seconds = np.minimum(np.diff(windows.time_ms), merge) / 1000
    return float((seconds * windows.speed[:-1] / 3.6).sum())


def _episodes(
    windows: TaskWindows, threshold: float, merge: int, config: EvaluationConfig
) -> list[tuple[int, int, float]]:
    """Start and end (ms) of each alarm of one recording, and its highest probability."""
    t, p = windows.time_ms, windows.probabilities
    shortest = round(config.alarm_min_s * 1000)
    episodes = []
    for first, last in runs(p >= threshold * config.alarm_off_share, t, merge):
        begin, end = np.searchsorted(t, first), np.searchsorted(t, last, "right")
        on = begin + np.flatnonzero(p[begin:end] >= threshold)
        late = begin + np.flatnonzero(t[begin:end] >= t[on[0]] + shortest) if len(on) else on
        if len(late):
            episodes.append((int(t[late[0]]), int(last), float(p[on[0] : end].max())))
    return episodes
