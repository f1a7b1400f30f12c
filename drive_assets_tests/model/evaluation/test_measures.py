import numpy as np
import pytest
from sklearn import metrics as sklearn

from model.evaluation.events import event_figures
from model.evaluation.measures import (
    average_precision,
    binary_metrics,
    blocks,
    bootstrap_areas,
    bootstrap_draws,
    choose_threshold,
    expected_calibration_error,
    interval,
    roc_auc,
)


@pytest.fixture(params=range(8))
def drawn(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(request.param)
    labels = rng.random(500) < 0.1
    scores = np.clip(rng.normal(0.3 + 0.2 * labels, 0.2), 0, 1).round(int(request.param % 3) + 1)  # with ties
    return labels, scores


def test_areas_equal_scikit_learns(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = drawn
    assert average_precision(labels, scores) == pytest.approx(sklearn.average_precision_score(labels, scores))
    assert roc_auc(labels, scores) == pytest.approx(sklearn.roc_auc_score(labels, scores))


def test_figures_at_a_threshold_equal_scikit_learns(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = drawn
    figures = binary_metrics(labels, scores, 0.5)
    said = scores >= 0.5
    assert figures["f1"] == pytest.approx(sklearn.f1_score(labels, said))
    assert figures["mcc"] == pytest.approx(sklearn.matthews_corrcoef(labels, said))
    assert figures["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, said))
    assert figures["brier"] == pytest.approx(sklearn.brier_score_loss(labels, scores))


def test_the_chosen_threshold_has_the_best_f1(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = drawn
    threshold = choose_threshold(labels, scores)
    assert threshold is not None
    f1 = {value: sklearn.f1_score(labels, scores >= value) for value in np.unique(scores)}
    assert f1[threshold] == pytest.approx(max(f1.values()))


def test_what_is_undefined_is_none() -> None:
    none, scores = np.zeros(4, bool), np.linspace(0, 1, 4)
    assert average_precision(none, scores) is None
    assert roc_auc(none, scores) is None
    assert roc_auc(~none, scores) is None
    assert choose_threshold(none, scores) is None
    assert binary_metrics(none, scores, 0.5)["recall"] is None
    assert binary_metrics(np.empty(0, bool), np.empty(0), None)["brier"] is None


def test_calibration_error_by_hand() -> None:
    scores = np.array([0.11, 0.12, 0.81, 0.82])
    # Bins (1/15 wide) hold {0.11, 0.12} and {0.81, 0.82}: |0.115 - 0.5| and |0.815 - 1|.
    assert expected_calibration_error(np.array([False, True, True, True]), scores) == pytest.approx((0.385 + 0.185) / 2)


def test_blocks_lie_within_recordings_and_are_drawn_whole() -> None:
    time_ms, recording = np.array([0, 29_000, 31_000, 31_500, 0, 500]), np.array([0, 0, 0, 0, 1, 1])
    block = blocks(time_ms, recording)
    assert [len(set(block[part])) for part in ([0, 1], [2, 3], [4, 5])] == [1, 1, 1]
    assert len(set(block)) == 3
    draws = bootstrap_draws(block, 50, seed=1)
    assert draws.shape == (50, 3)
    assert (draws.sum(axis=1) == 3).all()
    assert (draws == bootstrap_draws(block, 50, seed=1)).all()


def test_resampled_areas_equal_those_of_repeated_windows(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    labels, scores = drawn
    block = np.arange(500) // 10
    draws = bootstrap_draws(block, 5, seed=0)
    for drawn, precision, roc in zip(draws, *bootstrap_areas(labels, scores, block, draws), strict=True):
        index = np.repeat(np.arange(500), drawn[block])
        assert precision == pytest.approx(sklearn.average_precision_score(labels[index], scores[index]))
        assert roc == pytest.approx(sklearn.roc_auc_score(labels[index], scores[index]))


def test_positives_of_one_block_have_no_interval() -> None:
    labels, scores, block = np.array([True, True, False, False]), np.linspace(0, 1, 4), np.array([0, 0, 1, 1])
    draws = bootstrap_draws(block, 100, seed=0)
    assert interval(bootstrap_areas(labels, scores, block, draws)[0]) is None


def test_eight_recordings_are_resampled_whole() -> None:
    recording = np.repeat(np.arange(8), 100)
    assert (blocks(np.arange(800) * 500, recording) == recording).all()


def test_intervals_need_most_resamples() -> None:
    assert interval(np.array([0.0, 1.0, np.nan]), 0.5) == (0.25, 0.75)
    assert interval(np.array([0.5, np.nan, np.nan])) is None


def test_events_foreseen_late_and_false_alarms() -> None:
    # 2 Hz for 20 s. The label says braking one second ahead: onsets at 5 s and 15 s.
    time_ms = np.arange(40) * 500
    labels, scores = np.zeros(40, bool), np.zeros(40)
    labels[8:12] = labels[28:32] = True
    scores[7:9] = 0.9  # from 3.5 s: 1.5 s before the first onset
    scores[20] = 0.9  # 10 s: nothing comes
    figures = event_figures(labels, scores, 0.5, time_ms, np.zeros(40, int), horizon_s=1)
    assert (figures.events, figures.foreseen, figures.alarms, figures.false_alarms) == (2, 1, 2, 1)
    assert figures.lead_time_s == [1.5, 1.5, 1.5]
    assert figures.hours == pytest.approx(19.5 / 3600)
    assert figures.alarm_share == 3 / 40
    late = np.zeros(40)
    late[11:13] = 0.9  # 5.5 s: after the onset
    assert event_figures(labels, late, 0.5, time_ms, np.zeros(40, int), 1).foreseen == 0


@pytest.mark.parametrize("stride", [1, 3, 5, 8])
def test_an_event_is_one_at_any_stride_of_windows(stride: int) -> None:
    time_ms = np.arange(0, 400, stride) * 500
    labels = ((time_ms >= 40_000) & (time_ms < 60_000)) | ((time_ms >= 120_000) & (time_ms < 140_000))
    recording = np.zeros(len(time_ms), int)
    figures = event_figures(labels, labels.astype(float), 0.5, time_ms, recording, 1)
    assert (figures.events, figures.alarms, figures.foreseen, figures.false_alarms) == (2, 2, 2, 0)
