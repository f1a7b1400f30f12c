"""The launchpad of trainings: a recipe by name, and options that override it."""

import dagster as dg
import pytest

from drive_assets.training.assets import TrainingLaunchpad, _given
from model.training.recipes import RECIPES, TrainingConfig


def launched(config: dict[str, object]) -> object:
    """What a run with `config` trains by: Dagster fills in the default of every option that is not given."""
    configs = []

    @dg.asset
    def checkpoint(context: dg.AssetExecutionContext, config: TrainingLaunchpad) -> None:
        configs.append(config.training_config(_given(context)))

    assert dg.materialize([checkpoint], run_config={"ops": {"checkpoint": {"config": config}}}).success
    return configs[0]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({}, RECIPES["best"]),
        ({"recipe": "reference"}, RECIPES["reference"]),
        ({"recipe": "reference", "epochs": 3}, RECIPES["reference"].replace(epochs=3)),
        ({"ema_decay": 0.0, "seed": 4}, RECIPES["best"].replace(ema_decay=0.0, seed=4)),
    ],
)
def test_options_of_the_run_override_the_recipe(config: dict[str, object], expected: object) -> None:
    assert launched(config) == expected


def test_the_launchpad_shows_the_defaults_of_the_default_recipe() -> None:
    options = TrainingLaunchpad.to_config_schema().as_field().config_type.fields  # type: ignore[attr-defined]
    shown = {name: options[name].default_value for name in TrainingConfig.model_fields}
    assert shown == RECIPES["best"].model_dump(mode="json")
    assert options["epochs"].description == "Most epochs (at least 1; default 12)"
