"""Alarms by hand: brake_1s, so that a label that is true at t means an onset at t + 1 s."""

from dataclasses import replace

import numpy as np
import pytest

from model.evaluation.alarms import alarm_curve, alarm_figures, choose_thresholds, rate_interval
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import Drives
from model.evaluation.predictions import Predictions
from model.evaluation.results import AlarmThreshold

CONFIG = EvaluationConfig(alarm_off_share=0.5, false_alarms_per_hour=[60.0])


def drives(probability: dict[float, float], braking: list[tuple[float, float]]) -> Drives:
    """A minute at 36 km/h and 2 Hz: probabilities at some times, else 0, and brakings from and to (s)."""
    t = np.arange(120) * 500
    state = np.zeros(len(t), bool)
    for start, end in braking:
        state |= (t >= start * 1000) & (t < end * 1000)
    labels = np.append(state[2:], [False, False])
    p = np.zeros(len(t))
    for second, value in probability.items():
        p[round(second * 2)] = value
    return Drives.of(windows(t, labels, p, state))


def windows(t: np.ndarray, labels: np.ndarray, probabilities: np.ndarray, state: np.ndarray) -> Predictions:
    zeros, speed = np.zeros(len(t), int), np.full(len(t), 36, np.float32)
    known, force = np.ones(len(t), bool), np.full(len(t), 0.3, np.float32)
    return Predictions(("brake_1s",), ("first",), labels, known, state, probabilities, t, zeros, speed, zeros, force)


def reached(drives: Drives, config: EvaluationConfig = CONFIG) -> tuple[int, int, list[float]]:
    """Alarms, false ones, and lead times of the events foreseen."""
    alarms, lead = drives.alarms(0.8, config)
    return len(alarms), sum(alarm.false for alarm in alarms), lead[np.isfinite(lead)].tolist()


LEFT_OVER = {second / 2: 0.9 for second in range(2 * 21, 2 * 27)}
BEFORE_BOTH = {second / 2: 0.9 for second in range(2 * 19, 2 * 27)}


@pytest.mark.parametrize(
    ("probability", "braking", "expected"),
    [
        pytest.param({18.5: 0.9, 19.0: 0.9}, [(20, 22)], (1, 0, [1.5]), id="before the onset: foreseen"),
        pytest.param({10.0: 0.9}, [(20, 22)], (1, 1, []), id="far ahead: false"),
        pytest.param({30.0: 0.9}, [(20, 22)], (1, 1, []), id="after the end: false"),
        pytest.param({20.0: 0.9}, [(20, 22)], (1, 0, []), id="while the driver already brakes: neither"),
        pytest.param(LEFT_OVER, [(20, 22), (26, 28)], (1, 0, []), id="left over from an earlier braking: neither"),
        pytest.param(BEFORE_BOTH, [(20, 22), (26, 28)], (1, 0, [1.0]), id="before both: foresees the first"),
        pytest.param({0.0: 0.9}, [(0.5, 3)], (1, 0, []), id="for an onset that no window precedes: neither"),
    ],
)
def test_which_alarms_are_false(
    probability: dict[float, float], braking: list[tuple[float, float]], expected: tuple[int, int, list[float]]
) -> None:
    assert reached(drives(probability, braking)) == expected


def test_hysteresis_holds_an_alarm_and_the_minimum_duration_delays_it() -> None:
    found = drives({18.0: 0.9, 18.5: 0.5, 19.0: 0.5, 19.5: 0.9}, [(20, 22)])
    assert reached(found) == (1, 0, [2.0])
    assert reached(found, CONFIG.replace(alarm_min_s=1.0)) == (1, 0, [1.0])
    assert reached(drives({18.0: 0.9}, [(20, 22)]), CONFIG.replace(alarm_min_s=1.0)) == (0, 0, [])


def test_alarms_and_onsets_of_two_recordings_are_apart() -> None:
    """The second recording begins to brake where the first has an alarm; its own alarm is too late."""
    t, no = np.tile(np.arange(40) * 500, 2), np.zeros(80, bool)
    labels, p = no.copy(), np.zeros(80)
    labels[60:64], p[[18, 78]] = True, 0.9
    two = replace(windows(t, labels, p, no), recording=np.repeat([0, 1], 40))
    found = Drives.of(two)
    assert reached(found) == (2, 2, [])
    assert [found.place(time) for time in found.onset_ms] == [(1, 11_000)]
    assert (found.hours, found.km) == (2 * 19.5 / 3600, pytest.approx(0.39))


@pytest.mark.parametrize("stride", [1, 3, 5, 8])
def test_an_event_is_one_at_any_stride_of_windows(stride: int) -> None:
    t = np.arange(0, 400, stride) * 500
    labels = ((t >= 40_000) & (t < 60_000)) | ((t >= 120_000) & (t < 140_000))
    found = Drives.of(windows(t, labels, labels.astype(float), np.zeros(len(t), bool)))
    alarms, false, leads = reached(found)
    assert (found.events, alarms, false, len(leads)) == (2, 2, 0, 2)


def test_figures_of_a_budget() -> None:
    found = drives({10.0: 0.85, 18.5: 0.9, 39.5: 0.81}, [(20, 22), (40, 42), (50, 52)])
    figures = alarm_figures(found, AlarmThreshold(budget=60, on=0.8, off=0.4), CONFIG)
    assert (figures.events, figures.foreseen, figures.alarms, figures.false_alarms) == (3, 2, 3, 1)
    assert figures.recall_interval is not None
    assert figures.recall_interval[0] < 2 / 3 < figures.recall_interval[1]
    assert figures.lead_time_s is None  # two are too few for quartiles
    assert [point.recall for point in figures.recall_at_lead] == [2 / 3, 1 / 3, 1 / 3, 0, 0]
    assert figures.hours == pytest.approx(59.5 / 3600)
    assert figures.km == pytest.approx(0.595)
    assert figures.false_alarms_per_hour == pytest.approx(3600 / 59.5)
    assert figures.false_alarms_per_100_km == pytest.approx(100 / 0.595)


def test_the_threshold_of_a_budget_foresees_most_within_it() -> None:
    found = drives({5.0: 0.7, 10.0: 0.75, 18.5: 0.9, 39.5: 0.8, 49.5: 0.6}, [(20, 22), (40, 42), (50, 52)])
    budgets = EvaluationConfig(false_alarms_per_hour=[1.0, 70.0, 1000.0])
    assert [chosen.on for chosen in choose_thresholds(found, budgets)] == [0.8, 0.8, 0.6]
    assert [point.foreseen for point in alarm_curve(found, CONFIG)] == [1 / 3, 2 / 3]


def test_a_budget_that_no_threshold_keeps_has_a_reason() -> None:
    (chosen,) = choose_thresholds(drives({10.0: 0.9, 18.5: 0.5}, [(20, 22)]), CONFIG)
    assert chosen.on is None
    assert chosen.reason == "a single false alarm in val's 0.02 hours exceeds 60 per hour"
    figures = alarm_figures(drives({}, [(20, 22)]), chosen, CONFIG)
    assert (figures.events, figures.foreseen, figures.false_alarms) == (1, 0, 0)


def test_without_events_on_val_the_threshold_is_the_nearest_to_the_budget() -> None:
    (chosen,) = choose_thresholds(
        drives({10.0: 0.9, 30.0: 0.8, 50.0: 0.7}, []), CONFIG.replace(false_alarms_per_hour=[130.0])
    )
    assert chosen.on == 0.8
    assert alarm_curve(drives({}, []), CONFIG) == []


def test_zero_false_alarms_have_an_upper_bound() -> None:
    assert rate_interval(0, 2.0, 0.95) == (0.0, pytest.approx(3.689 / 2, abs=1e-3))
    assert rate_interval(0, 0.0, 0.95) is None
