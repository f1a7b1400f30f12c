"""The launchpad of trainings: a recipe by name, and options that override it."""

import dagster as dg
import pytest

from drive_assets.training.assets import TrainingLaunchpad, _given
from model.training.recipes import RECIPES


def launched(config: dict[str, object]) -> object:
    """What a run with `config` trains by: Dagster fills in the default of every option that is not given."""
    found = []

    @dg.asset
    def checkpoint(context: dg.AssetExecutionContext, config: TrainingLaunchpad) -> None:
        found.append(config.training_config(_given(context)))

    assert dg.materialize([checkpoint], run_config={"ops": {"checkpoint": {"config": config}}}).success
    return found[0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, RECIPES["reference"]),
        ({"epochs": 3}, RECIPES["reference"].replace(epochs=3)),
        ({"recipe": "best"}, RECIPES["best"]),
        ({"recipe": "best", "ema_decay": 0.0, "seed": 4}, RECIPES["best"].replace(ema_decay=0.0, seed=4)),
    ],
)
def test_options_of_the_run_override_the_recipe(config: dict[str, object], expected: object) -> None:
    assert launched(config) == expected
