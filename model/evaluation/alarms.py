"""Thresholds that keep a budget of false alarms, and what they reach: chosen on val, reported on test."""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from scipy import stats

from model.evaluation.config import EvaluationConfig
from model.evaluation.events import Drives
from model.evaluation.results import AlarmFigures, AlarmThreshold, CurvePoint, Interval, RecallAtLead

LEADS_S = (0.5, 1.0, 1.5, 2.0, 3.0)
"""Lead times for which recall is reported."""
CANDIDATES = 120
"""Thresholds to try, closer together where alarms are rare."""
CURVE_END = 60.0
"""False alarms per hour at which the curve ends."""
MIN_SAMPLES = 4
"""Fewer values have no quartiles and no median."""


def choose_thresholds(val: Drives, config: EvaluationConfig) -> list[AlarmThreshold]:
    """For each budget the threshold that foresees most events on val within it; of equal ones the highest.

    Thresholds are tried from the highest down to the first that exceeds the budget: lower ones let alarms merge and
    look better than they are. Without events on val, the threshold that comes nearest to the budget.
    """
    tried = list(_sweep(val, max(config.false_alarms_per_hour), config))
    return [_within(budget, val, tried, config) for budget in config.false_alarms_per_hour]


def alarm_threshold(on: float, budget: float | None, config: EvaluationConfig) -> AlarmThreshold:
    """The threshold of an alarm with its hysteresis; `budget` None: chosen for its F1."""
    return AlarmThreshold(budget=budget, on=on, off=on * config.alarm_off_share)


def _within(
    budget: float, val: Drives, tried: list[tuple[float, float, int]], config: EvaluationConfig
) -> AlarmThreshold:
    kept = list(itertools.takewhile(lambda trial: trial[1] <= budget, tried))
    if not kept:
        reason = f"a single false alarm in val's {val.hours:.2f} hours exceeds {budget:g} per hour"
        return AlarmThreshold(budget=budget, on=None, off=None, reason=reason)
    on = max(kept, key=lambda trial: trial[2] if val.events else trial[1])[0]
    return alarm_threshold(on, budget, config)


def _sweep(drives: Drives, limit: float, config: EvaluationConfig) -> Iterator[tuple[float, float, int]]:
    """Falling thresholds with false alarms per hour and events foreseen, down to `limit` false alarms per hour."""
    for threshold in _candidates(drives):
        alarms, lead = drives.alarms(threshold, config)
        rate = sum(alarm.false for alarm in alarms) / drives.hours if drives.hours else math.inf
        if rate > limit:
            return
        yield float(threshold), rate, int(np.isfinite(lead).sum())


def _candidates(drives: Drives) -> npt.NDArray[np.float64]:
    """Thresholds to try, falling."""
    distinct = np.unique(np.concatenate([[], *(drive.windows.probabilities for drive in drives.drives)]))[::-1]
    if not len(distinct):
        return distinct
    return distinct[np.unique(np.geomspace(1, len(distinct), CANDIDATES).round().astype(int)) - 1]


def alarm_figures(drives: Drives, threshold: AlarmThreshold, config: EvaluationConfig) -> AlarmFigures:
    """What a threshold reaches on a split."""
    alarms, lead = drives.alarms(threshold.on, config)
    known = np.isfinite(lead)
    foreseen, false = int(known.sum()), sum(alarm.false for alarm in alarms)
    level = config.confidence_level
    recall_at_lead = []
    for seconds in LEADS_S:
        recall, interval = _proportion(int((lead >= seconds).sum()), len(lead), level)
        recall_at_lead.append(RecallAtLead(lead_s=seconds, recall=recall, interval=interval))
    recall, recall_interval = _proportion(foreseen, len(lead), level)
    return AlarmFigures(
        threshold=threshold,
        events=len(lead),
        foreseen=foreseen,
        recall=recall,
        recall_interval=recall_interval,
        lead_time_s=np.quantile(lead[known], [0.25, 0.5, 0.75]).tolist() if foreseen >= MIN_SAMPLES else None,
        recall_at_lead=recall_at_lead,
        brake_force_foreseen=_median(drives.brake_force[known]),
        brake_force_missed=_median(drives.brake_force[~known]),
        alarms=len(alarms),
        false_alarms=false,
        false_alarms_per_hour=false / drives.hours if drives.hours else None,
        false_alarms_per_hour_interval=rate_interval(false, drives.hours, level),
        false_alarms_per_100_km=100 * false / drives.km if drives.km else None,
        hours=drives.hours,
        km=drives.km,
    )


def alarm_curve(drives: Drives, config: EvaluationConfig) -> list[CurvePoint]:
    """Share of events foreseen over false alarms per hour, by falling threshold; empty without events or time."""
    events = drives.events
    return [
        CurvePoint(false_alarms_per_hour=rate, foreseen=foreseen / events)
        for _, rate, foreseen in (_sweep(drives, CURVE_END, config) if events else ())
    ]


def _proportion(part: int, whole: int, level: float) -> tuple[float | None, Interval | None]:
    """part / whole with Wilson's interval; None if whole is zero."""
    if whole == 0:
        return None, None
    bounds = stats.binomtest(part, whole).proportion_ci(level, method="wilson")
    return part / whole, (float(bounds.low), float(bounds.high))


def rate_interval(count: int, hours: float, level: float) -> Interval | None:
    """The exact interval of a Poisson rate per hour (Garwood 1936)."""
    if hours == 0:
        return None
    low = stats.chi2.ppf((1 - level) / 2, 2 * count) / 2 if count else 0.0
    high = stats.chi2.ppf((1 + level) / 2, 2 * count + 2) / 2
    return float(low / hours), float(high / hours)


def _median(values: npt.NDArray[np.float32]) -> float | None:
    """Of the known values; None for fewer than MIN_SAMPLES."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) >= MIN_SAMPLES else None
