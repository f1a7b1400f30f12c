"""What a driver would notice: was a braking foreseen, how long ahead, and how often was there a false alarm."""

import numpy as np
import numpy.typing as npt

from model.evaluation.results import EventFigures
from model.recording.times import MAX_STEP_MS

MERGE_S = 2.0
"""Alarms and events closer than this are one; so are those of windows that follow each other at any stride."""
LEAD_MARGIN_S = 1.0
"""An alarm counts for an event up to its task's horizon and this long before it."""


def event_figures(
    labels: npt.NDArray[np.bool_],
    scores: npt.NDArray[np.float64],
    threshold: float,
    time_ms: npt.NDArray[np.int64],
    recording: npt.NDArray[np.integer],
    horizon_s: float,
) -> EventFigures:
    """Figures of the windows (W,) of a split, in their order.

    A label that is true at time t says that the driver brakes at t + horizon: a run of true labels is one event, whose
    onset is its first time plus the horizon. An alarm is a run of scores at or above the threshold. An event is
    foreseen if an alarm begins, or goes on, within horizon + LEAD_MARGIN_S before the onset and not after it; the lead
    time is from the alarm's first window in that span to the onset. An alarm that reaches no event is false.
    """
    horizon, margin = round(horizon_s * 1000), round(LEAD_MARGIN_S * 1000)
    merge = merge_ms(time_ms, recording)
    events = foreseen = alarms = false_alarms = 0
    leads: list[float] = []
    for number in np.unique(recording):
        rows = np.flatnonzero(recording == number)
        t = time_ms[rows]
        onsets = runs(labels[rows], t, merge)[:, 0] + horizon
        ringing = runs(scores[rows] >= threshold, t, merge)
        # (events, alarms): the alarm's time within the span before the onset
        begins = np.maximum(ringing[None, :, 0], (onsets - horizon - margin)[:, None])
        reaches = (begins <= onsets[:, None]) & (begins <= ringing[None, :, 1])
        events += len(onsets)
        alarms += len(ringing)
        foreseen += int(reaches.any(axis=1).sum())
        false_alarms += int((~reaches.any(axis=0)).sum())
        first = np.where(reaches, begins, np.iinfo(np.int64).max).min(axis=1, initial=np.iinfo(np.int64).max)
        leads += ((onsets - first)[reaches.any(axis=1)] / 1000).tolist()
    hours = driven_ms(time_ms, recording) / 3_600_000
    return EventFigures(
        events=events,
        foreseen=foreseen,
        recall=foreseen / events if events else None,
        lead_time_s=[float(q) for q in np.quantile(leads, [0.25, 0.5, 0.75])] if leads else None,
        alarms=alarms,
        false_alarms=false_alarms,
        hours=hours,
        false_alarms_per_hour=false_alarms / hours if hours else None,
        alarm_share=float((scores >= threshold).mean()) if len(scores) else None,
    )


def merge_ms(time_ms: npt.NDArray[np.int64], recording: npt.NDArray[np.integer]) -> int:
    """How far apart windows (W,) may be and still belong to one event or alarm, at whatever stride."""
    steps = np.diff(time_ms)[np.diff(recording) == 0]
    return max(round(MERGE_S * 1000), int(1.5 * np.median(steps)) if len(steps) else 0)


def driven_ms(time_ms: npt.NDArray[np.int64], recording: npt.NDArray[np.integer]) -> int:
    """Time that windows (W,) cover, without gaps."""
    steps = np.diff(time_ms)[np.diff(recording) == 0]
    return int(np.minimum(steps, 10 * MAX_STEP_MS).sum())


def runs(yes: npt.NDArray[np.bool_], time_ms: npt.NDArray[np.int64], merge_ms: int) -> npt.NDArray[np.int64]:
    """(n,2) first and last time of each run of `yes`, runs not further apart than `merge_ms` joined."""
    times = time_ms[yes]
    if len(times) == 0:
        return np.empty((0, 2), np.int64)
    cuts = np.flatnonzero(np.diff(times) > merge_ms)
    return np.column_stack([times[np.concatenate([[0], cuts + 1])], times[np.append(cuts, len(times) - 1)]])
