import numpy as np
import pytest

from model.evaluation.calibration import Curve, Method, fit_curve
from model.evaluation.measures import average_precision, expected_calibration_error


@pytest.fixture(scope="module")
def overconfident() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, the probabilities they were drawn with, and those of a network whose logits are twice as large."""
    rng = np.random.default_rng(0)
    z = rng.normal(-2, 1.5, 20_000)
    true = 1 / (1 + np.exp(-z))
    return rng.random(len(z)) < true, true, 1 / (1 + np.exp(-2 * z))


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic"])
def test_calibration_restores_the_rates_and_keeps_the_ranking(
    overconfident: tuple[np.ndarray, np.ndarray, np.ndarray], method: Method
) -> None:
    labels, true, predicted = overconfident
    half = len(labels) // 2
    curve = fit_curve(labels[:half], predicted[:half], method)
    after = curve(predicted[half:])
    assert expected_calibration_error(labels[half:], predicted[half:]) > 0.04
    assert expected_calibration_error(labels[half:], after) < 0.02
    assert np.abs(after - true[half:]).mean() < 0.02
    before = average_precision(labels[half:], predicted[half:])
    assert average_precision(labels[half:], after) == pytest.approx(before, abs=1e-12 if method != "isotonic" else 0.05)


@pytest.mark.parametrize("method", ["platt", "temperature", "isotonic", "none"])
def test_a_task_with_few_positives_is_not_calibrated(method: Method) -> None:
    labels = np.arange(100) < 4
    assert fit_curve(labels, np.linspace(0, 1, 100), method) == Curve()


@pytest.mark.parametrize("method", ["platt", "temperature"])
def test_probabilities_that_separate_the_labels_stay_different(method: Method) -> None:
    predicted = np.concatenate([np.linspace(0.001, 0.45, 50), np.linspace(0.55, 0.999, 50)])
    after = fit_curve(np.arange(100) >= 50, predicted, method)(predicted)
    assert (np.diff(after) > 0).all()


def test_the_ranking_of_a_network_worse_than_chance_is_not_reversed() -> None:
    labels = np.arange(100) < 50
    assert fit_curve(labels, np.linspace(0.1, 0.9, 100), "platt").slope > 0
