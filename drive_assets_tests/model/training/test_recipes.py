"""Recipes: their defaults, their errors, and the schedule of the learning rate."""

import math
from typing import Any

import pytest

from model.common.errors import DataError
from model.training.recipes import TrainingConfig
from model.training.schedule import Schedule


def rates(config: TrainingConfig, scores: list[float]) -> list[float]:
    schedule = Schedule(config)
    values = []
    for score in scores:
        values.append(schedule.rate)
        schedule.step({"val_pr_auc_mean": score})
    return values


def test_warm_up_rises_from_five_percent_over_eight_epochs() -> None:
    values = rates(TrainingConfig(), [epoch / 100 for epoch in range(10)])
    assert values == pytest.approx([5e-5 * (0.05 + 0.95 * epoch / 8) for epoch in range(8)] + [5e-5, 5e-5])


def test_the_rate_falls_after_six_epochs_without_progress_and_never_below_its_floor() -> None:
    config = TrainingConfig(warmup_epochs=0, learning_rate=1.0, early_stop_patience=1000, epochs=1000)
    values = rates(config, [0.5] + [0.4] * 300)
    assert values[:8] == [1.0] * 8
    assert values[8:15] == [0.85] * 7
    assert values[15] == pytest.approx(0.85**2)
    assert values[-1] == 0.01


def test_the_run_ends_twenty_epochs_after_its_best() -> None:
    schedule = Schedule(TrainingConfig())
    scores = iter([0.1, 0.2, 0.3, *[0.25] * 100])
    while not schedule.ended:
        schedule.step({"val_pr_auc_mean": next(scores)})
    assert (schedule.best_epoch, schedule.epoch) == (2, 8 + 20)


def test_the_cosine_falls_from_the_rate_to_the_floor() -> None:
    config = TrainingConfig(schedule="cosine", warmup_epochs=1, epochs=5, learning_rate=1.0, rate_floor=0.0)
    values = rates(config, [0.0] * 5)
    assert values == pytest.approx([0.05, 1.0, (2 + math.sqrt(2)) / 4, 0.5, (2 - math.sqrt(2)) / 4])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"tasks": ("brake_7s",)}, "tasks .*expected distinct labels of brake_1s"),
        ({"batch_size": 0}, "batch_size 0: expected greater than or equal to 1"),
        ({"learning_rate": float("nan")}, "learning_rate nan: expected a finite number"),
        ({"plateau_factor": 1.5}, "plateau_factor 1.5: expected less than or equal to 1"),
        ({"precision": "fp8"}, "precision 'fp8': expected 'auto', 'fp32' or 'bf16'"),
        ({"gear": "none"}, "gear 'none': expected 'onehot' or 'continuous'"),
    ],
)
def test_a_wrong_recipe_says_what_is_allowed(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        TrainingConfig(**wrong)
