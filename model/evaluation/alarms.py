"""Alarms as a driver would hear them: a budget of false ones an hour, and what is foreseen within it.

An alarm is an episode with hysteresis: it rings from the first probability at or above the on-threshold (once the
episode has lasted long enough) until the last at or above the off-threshold. An onset is the moment at which the driver
begins to brake (coast). An alarm foresees it if it rings before it, within the task's horizon and LEAD_MARGIN_S, and
began after the driver last braked: one that goes on from an earlier braking foresees nothing. An alarm that begins
while the driver brakes already tells nothing new, and is not false; every other that foresees nothing is.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.evaluation.config import EvaluationConfig
from model.evaluation.events import LEAD_MARGIN_S, driven_ms, merge_ms, runs
from model.evaluation.predictions import TaskWindows
from model.evaluation.results import AlarmFigures, AlarmThreshold, CurvePoint, Interval, RecallAtLead

LEADS_S = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Times before the onset at which recall is told."""
CANDIDATES = 120
"""Thresholds that are tried, closer together where alarms are rare."""
CURVE_TO = 60.0
"""False alarms an hour at which the curve ends."""
FEWEST_LEADS = 4
"""Fewer lead times have no quartiles."""
_NEVER = np.iinfo(np.int64).min


@dataclass(frozen=True)
class Alarm:
    """One alarm of one recording."""

    recording: int
    start_ms: int
    end_ms: int
    probability: float
    """Highest while it rings."""
    event: int | None
    """The first event that it foresees, by its number in `Drives.onsets`."""
    false: bool


@dataclass(frozen=True)
class Drives:
    """The windows of a task by recording, with the onsets in them."""

    windows: TaskWindows
    rows: list[npt.NDArray[np.int64]]
    """Of each recording"""
    onsets: npt.NDArray[np.int64]
    """(E,3) index into `rows`, time of the onset, and time at which the driver last braked before it, or _NEVER"""
    strength: npt.NDArray[np.float32]
    """(E,) highest braking force, NaN where unknown"""
    unseen: npt.NDArray[np.int64]
    """(U,2) index into `rows` and time of onsets that no window precedes: neither counted nor a reason for falseness"""
    hours: float
    km: float | None

    @classmethod
    def of(cls, windows: TaskWindows) -> Self:
        """Find the onsets: the first time of each run of true labels, plus the horizon."""
        merge, horizon = merge_ms(windows.time_ms, windows.recording), round(windows.horizon_s * 1000)
        rows = [np.flatnonzero(windows.recording == number) for number in np.unique(windows.recording)]
        onsets: list[tuple[int, int, int]] = []
        unseen: list[tuple[int, int]] = []
        strength: list[float] = []
        metres = 0.0
        for index, of in enumerate(rows):
            t, state = windows.time_ms[of], windows.going_on[of]
            metres += float((np.minimum(np.diff(t), merge) / 1000 * windows.speed[of][:-1] / 3.6).sum())
            first_of_segment = t[np.concatenate([[True], np.diff(t) > merge])]
            for first, last in runs(windows.labels[of], t, merge):
                onset = int(first) + horizon
                if first in first_of_segment:
                    unseen.append((index, onset))
                    continue
                onsets.append((index, onset, int(t[state & (t < onset)].max(initial=_NEVER))))
                force = windows.brake_force[of][(t >= first) & (t <= last)]
                strength.append(float(np.nanmax(force)) if np.isfinite(force).any() else float("nan"))
        driven = driven_ms(windows.time_ms, windows.recording)
        return cls(
            windows,
            rows,
            np.array(onsets, np.int64).reshape(-1, 3),
            np.array(strength, np.float32),
            np.array(unseen, np.int64).reshape(-1, 2),
            driven / 3_600_000,
            metres / 1000 if np.isfinite(metres) else None,
        )

    @property
    def span_ms(self) -> int:
        """How long before an onset an alarm counts for it."""
        return round((self.windows.horizon_s + LEAD_MARGIN_S) * 1000)

    def alarms(self, threshold: float, config: EvaluationConfig) -> tuple[list[Alarm], npt.NDArray[np.float64]]:
        """The alarms at an on-threshold, and each event's lead time in s (E,), NaN where it is not foreseen."""
        windows = self.windows
        merge = merge_ms(windows.time_ms, windows.recording)
        span = self.span_ms
        lead = np.full(len(self.onsets), np.nan)
        found: list[Alarm] = []
        for index, of in enumerate(self.rows):
            t, p, state = windows.time_ms[of], windows.probabilities[of], windows.going_on[of]
            events = np.flatnonzero(self.onsets[:, 0] == index)
            _, onset, braked = self.onsets[events].T
            unseen = self.unseen[self.unseen[:, 0] == index, 1]
            for start, end, highest in _episodes(t, p, threshold, merge, config):
                heard = (start < onset) & (start > braked) & (end >= onset - span)
                for event in events[heard]:
                    lead[event] = np.fmax(lead[event], (self.onsets[event, 1] - start) / 1000)
                excused = bool(state[np.searchsorted(t, start)]) or bool(
                    ((start < unseen) & (end >= unseen - span)).any()
                )
                first = int(events[heard][0]) if heard.any() else None
                found.append(Alarm(index, start, end, highest, first, first is None and not excused))
        return found, lead


def choose_thresholds(val: Drives, config: EvaluationConfig) -> list[AlarmThreshold]:
    """For each budget the threshold that foresees most on val within it, of equals the highest.

    Thresholds are taken from the highest down to the first that breaks the budget: lower ones let alarms run into one
    another and look better than they are. Where val has no event, the one that comes nearest to the budget.
    """
    tried = list(_sweep(val, max(config.false_alarms_per_hour), config))
    return [_within(budget, val, tried, config) for budget in config.false_alarms_per_hour]


def _within(
    budget: float, val: Drives, tried: list[tuple[float, float, int]], config: EvaluationConfig
) -> AlarmThreshold:
    kept = list(itertools.takewhile(lambda trial: trial[1] <= budget, tried))
    if not kept:
        reason = f"one false alarm in val's {val.hours:.2f} hours is more than {budget:g} an hour already"
        return AlarmThreshold(budget=budget, on=None, off=None, reason=reason)
    on = max(kept, key=lambda trial: trial[2] if len(val.onsets) else trial[1])[0]
    return AlarmThreshold(budget=budget, on=on, off=on * config.alarm_off_share)


def _sweep(drives: Drives, limit: float, config: EvaluationConfig) -> Iterator[tuple[float, float, int]]:
    """Falling thresholds, each with false alarms an hour and events foreseen, down to `limit` false alarms an hour."""
    for threshold in _candidates(drives.windows.probabilities):
        alarms, lead = drives.alarms(threshold, config)
        rate = sum(alarm.false for alarm in alarms) / drives.hours if drives.hours else math.inf
        if rate > limit:
            return
        yield float(threshold), rate, int(np.isfinite(lead).sum())


def alarm_figures(drives: Drives, chosen: AlarmThreshold, config: EvaluationConfig) -> AlarmFigures:
    """What a budget's threshold reaches on a split."""
    alarms, lead = (
        drives.alarms(chosen.on, config) if chosen.on is not None else ([], np.full(len(drives.onsets), np.nan))
    )
    events, foreseen = len(lead), int(np.isfinite(lead).sum())
    false = sum(alarm.false for alarm in alarms)
    level = config.confidence_level
    return AlarmFigures(
        threshold=chosen,
        events=events,
        foreseen=foreseen,
        recall=foreseen / events if events else None,
        recall_interval=proportion_interval(foreseen, events, level),
        lead_time_s=np.quantile(lead[np.isfinite(lead)], [0.25, 0.5, 0.75]).tolist()
        if foreseen >= FEWEST_LEADS
        else None,
        recall_at_lead=[_recall_at(seconds, lead, level) for seconds in LEADS_S],
        brake_force_foreseen=_median(drives.strength[np.isfinite(lead)]),
        brake_force_missed=_median(drives.strength[~np.isfinite(lead)]),
        alarms=len(alarms),
        false_alarms=false,
        false_alarms_per_hour=false / drives.hours if drives.hours else None,
        false_alarms_per_hour_interval=rate_interval(false, drives.hours, level),
        false_alarms_per_100_km=100 * false / drives.km if drives.km else None,
        hours=drives.hours,
        km=drives.km,
    )


def alarm_curve(drives: Drives, config: EvaluationConfig) -> list[CurvePoint]:
    """Share of events foreseen against false alarms an hour, by falling threshold; empty without events or time."""
    events = len(drives.onsets)
    return [
        CurvePoint(false_alarms_per_hour=rate, foreseen=foreseen / events)
        for _, rate, foreseen in (_sweep(drives, CURVE_TO, config) if events else ())
    ]


def proportion_interval(part: int, whole: int, level: float) -> Interval | None:
    """Wilson's interval of part / whole."""
    if whole == 0:
        return None
    found = stats.binomtest(part, whole).proportion_ci(level, method="wilson")
    return float(found.low), float(found.high)


def rate_interval(count: int, hours: float, level: float) -> Interval | None:
    """The exact interval of a Poisson rate (Garwood 1936), an hour."""
    if hours == 0:
        return None
    low = stats.chi2.ppf((1 - level) / 2, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf((1 + level) / 2, 2 * count + 2) / 2
    return float(low / hours), float(high / hours)


def _recall_at(seconds: float, lead: npt.NDArray[np.float64], level: float) -> RecallAtLead:
    early = int((lead >= seconds).sum())
    events = len(lead)
    return RecallAtLead(
        lead_s=seconds,
        recall=early / events if events else None,
        interval=proportion_interval(early, events, level),
    )


def _median(values: npt.NDArray[np.float32]) -> float | None:
    """Of the known ones; None for fewer than FEWEST_LEADS."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) >= FEWEST_LEADS else None


def _episodes(
    t: npt.NDArray[np.int64], p: npt.NDArray[np.float64], threshold: float, merge: int, config: EvaluationConfig
) -> list[tuple[int, int, float]]:
    """Start and end (ms) of each alarm of one recording, and its highest probability."""
    shortest = round(config.alarm_min_s * 1000)
    on = p >= threshold
    found = []
    for first, last in runs(p >= threshold * config.alarm_off_share, t, merge):
        begin, end = np.searchsorted(t, first), np.searchsorted(t, last, "right")
        ringing = np.flatnonzero(on[begin:end])
        if not len(ringing):
            continue
        late = np.flatnonzero(t[begin:end] >= t[begin + ringing[0]] + shortest)
        if len(late):
            found.append((int(t[begin + late[0]]), int(last), float(p[begin + ringing[0] : end].max())))
    return found


def _candidates(probabilities: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Thresholds to try, falling."""
    distinct = np.unique(probabilities)[::-1]
    if not len(distinct):
        return distinct
    return distinct[np.unique(np.geomspace(1, len(distinct), CANDIDATES).round().astype(int)) - 1]
