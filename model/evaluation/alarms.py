"""Thresholds that keep a budget of false alarms, and what they reach: chosen on val, reported on test."""

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
    chosen = []
    for budget in config.false_alarms_per_hour:
        first_over = next((index for index, (_, rate, _) in enumerate(tried) if rate > budget), len(tried))
        if first_over:
            on = max(tried[:first_over], key=lambda trial: trial[2] if val.events else trial[1])[0]
            chosen.append(AlarmThreshold(budget=budget, on=on, off=on * config.alarm_off_share))
        else:
            reason = f"a single false alarm in val's {val.hours:.2f} hours exceeds {budget:g} per hour"
            chosen.append(AlarmThreshold(budget=budget, on=None, off=None, reason=reason))
    return chosen


def _sweep(drives: Drives, limit: float, config: EvaluationConfig) -> Iterator[tuple[float, float, int]]:
    """Falling thresholds with false alarms per hour and events foreseen, down to `limit` false alarms per hour."""
    probabilities = np.unique(drives.windows.probabilities)[::-1]
    places = np.geomspace(1, len(probabilities), CANDIDATES) if len(probabilities) else np.empty(0)
    for threshold in probabilities[np.unique(places.round().astype(int)) - 1]:
        alarms, lead = drives.alarms(threshold, config)
        rate = sum(alarm.false for alarm in alarms) / drives.hours if drives.hours else math.inf
        if rate > limit:
            return
        yield float(threshold), rate, int(np.isfinite(lead).sum())


def alarm_figures(drives: Drives, threshold: AlarmThreshold, config: EvaluationConfig) -> AlarmFigures:
    """What a threshold reaches on a split."""
    alarms, lead = drives.alarms(threshold.on, config)
    known = np.isfinite(lead)
    foreseen, false = int(known.sum()), sum(alarm.false for alarm in alarms)
    level = config.confidence_level
    recall, recall_interval = _proportion(known, level)
    at_lead = {seconds: _proportion(lead >= seconds, level) for seconds in LEADS_S}
    return AlarmFigures(
        threshold=threshold,
        events=len(lead),
        foreseen=foreseen,
        recall=recall,
        recall_interval=recall_interval,
        lead_time_s=np.quantile(lead[known], [0.25, 0.5, 0.75]).tolist() if foreseen >= MIN_SAMPLES else None,
        recall_at_lead=[RecallAtLead(lead_s=s, recall=share, interval=i) for s, (share, i) in at_lead.items()],
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
    points = _sweep(drives, CURVE_END, config) if drives.events else ()
    return [CurvePoint(false_alarms_per_hour=rate, foreseen=foreseen / drives.events) for _, rate, foreseen in points]


def _proportion(yes: npt.NDArray[np.bool_], level: float) -> tuple[float | None, Interval | None]:
    """The share that is true, with Wilson's interval; None if there is nothing to count."""
    if len(yes) == 0:
        return None, None
    bounds = stats.binomtest(int(yes.sum()), len(yes)).proportion_ci(level, method="wilson")
    return int(yes.sum()) / len(yes), (float(bounds.low), float(bounds.high))


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
