import numpy as np
import pytest
from sklearn import metrics as sklearn

from model.evaluation.measures import (
    average_precision,
    binary_metrics,
    blocks,
    bootstrap_areas,
    bootstrap_draws,
    choose_threshold,
    expected_calibration_error,
    interval,
    matched_precision,
    roc_auc,
)

Drawn = tuple[np.ndarray, np.ndarray]


@pytest.fixture(params=[1, 2, 3])
def drawn(request: pytest.FixtureRequest) -> Drawn:
    """Labels and scores; with one digit most scores are tied."""
    rng = np.random.default_rng(request.param)
    labels = rng.random(500) < 0.1
    return labels, np.clip(rng.normal(0.3 + 0.2 * labels, 0.2), 0, 1).round(request.param)


def test_figures_at_a_threshold_equal_scikit_learns(drawn: Drawn) -> None:
    labels, scores = drawn
    figures = binary_metrics(labels, scores, 0.5)
    yes = scores >= 0.5
    assert figures["f1"] == pytest.approx(sklearn.f1_score(labels, yes))
    assert figures["mcc"] == pytest.approx(sklearn.matthews_corrcoef(labels, yes))
    assert figures["balanced_accuracy"] == pytest.approx(sklearn.balanced_accuracy_score(labels, yes))
    assert figures["brier"] == pytest.approx(sklearn.brier_score_loss(labels, scores))


def test_the_chosen_threshold_has_the_best_f1(drawn: Drawn) -> None:
    labels, scores = drawn
    f1 = {value: sklearn.f1_score(labels, scores >= value) for value in np.unique(scores)}
    assert f1[choose_threshold(labels, scores)] == pytest.approx(max(f1.values()))


def test_undefined_figures_are_none() -> None:
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


def test_eight_recordings_are_resampled_whole() -> None:
    recording = np.repeat(np.arange(8), 100)
    assert (blocks(np.arange(800) * 500, recording) == recording).all()


def test_resampled_areas_equal_scikit_learns_of_repeated_windows(drawn: Drawn) -> None:
    labels, scores = drawn
    block = np.arange(500) // 10
    draws = bootstrap_draws(block, 5, seed=0)
    for draw, precision, roc in zip(draws, *bootstrap_areas(labels, scores, block, draws), strict=True):
        index = np.repeat(np.arange(500), draw[block])
        assert precision == pytest.approx(sklearn.average_precision_score(labels[index], scores[index]))
        assert roc == pytest.approx(sklearn.roc_auc_score(labels[index], scores[index]))


def test_positives_of_one_block_have_no_interval() -> None:
    labels, scores, block = np.array([True, True, False, False]), np.linspace(0, 1, 4), np.array([0, 0, 1, 1])
    draws = bootstrap_draws(block, 100, seed=0)
    assert interval(bootstrap_areas(labels, scores, block, draws)[0]) is None


def test_intervals_need_most_resamples() -> None:
    assert interval(np.array([0.0, 1.0, np.nan]), 0.5) == (0.25, 0.75)
    assert interval(np.array([0.5, np.nan, np.nan])) is None


def test_a_model_that_only_knows_the_scene_is_random_against_matched_negatives() -> None:
    """Braking is frequent where a vehicle is close: saying so is worth nothing among moments of that kind."""
    rng = np.random.default_rng(0)
    close = np.repeat([True, False], 1000)
    labels = rng.random(2000) < np.where(close, 0.4, 0.02)
    scene, exact = close * 1.0, labels + 0.1 * rng.random(2000)
    assert average_precision(labels, scene) == pytest.approx(0.38, abs=0.03)
    assert matched_precision(labels, scene, close.astype(np.int64)) == pytest.approx(labels.mean(), abs=1e-6)
    assert matched_precision(labels, exact, close.astype(np.int64)) == 1.0
    assert matched_precision(close, scene, close.astype(np.int64)) is None
