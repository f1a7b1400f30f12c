"""Search for a better recipe: trials of Optuna, scored on val, each a nested run in MLflow.

    python -m drive_assets.training.sweep --splits data/datasets/multimodal --output build/sweep --trials 30

The study is stored in `--output` and continues there at the next start. Needs the extra `sweep`.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import GROUP, log_metrics
from model.common.errors import DataError
from model.network.architectures import ARCHITECTURES
from model.training.recipes import RECIPES, TrainingConfig

if TYPE_CHECKING:
    from optuna import Study, Trial


def search_space(trial: "Trial") -> dict[str, Any]:
    """The options that a trial changes."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 2e-2, log=True),
        "dropout_prob": trial.suggest_float("dropout_prob", 0.0, 0.4),
        "weight_decay_ratio": trial.suggest_float("weight_decay_ratio", 0.5, 20.0, log=True),
        "auxiliary_weight": trial.suggest_float("auxiliary_weight", 0.0, 1.0),
        "onset_weight": trial.suggest_float("onset_weight", 1.0, 3.0),
        "members_dim": trial.suggest_categorical("members_dim", [64, 128, 256]),
        "hidden_dim": trial.suggest_categorical("hidden_dim", [32, 64, 128]),
    }


def sweep(
    architecture: str,
    splits: Path,
    output: Path,
    base: TrainingConfig,
    trials: int,
    mlflow: Mlflow,
    space: Callable[["Trial"], dict[str, Any]] = search_space,
) -> "Study":
    """Run `trials` more trainings by recipe `base` with options from `space`, for the highest mean val PR-AUC.

    Raises:
        DataError: Optuna is not installed, or as `train`.
    """
    try:
        import optuna
    except ImportError as error:
        raise DataError("Optuna is not installed: pip install 'drive-assets[sweep]'.") from error
    from model.training.loop import train
    from model.training.result import score

    output.mkdir(parents=True, exist_ok=True)
    client, experiment = mlflow.client(), mlflow.prepared()
    study = optuna.create_study(
        storage=f"sqlite:///{output / 'study.db'}",
        study_name=f"recipe-{architecture}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=base.seed),
        load_if_exists=True,
    )
    parent = study.user_attrs.get(GROUP)
    if parent is None:
        parent = client.create_run(experiment, run_name=f"sweep of {architecture}").info.run_id
        study.set_user_attr(GROUP, parent)

    def objective(trial: "Trial") -> float:
        options = space(trial)
        tags, name = {GROUP: parent, "architecture": architecture}, f"{architecture}, trial {trial.number}"
        run = client.create_run(experiment, tags=tags, run_name=name).info.run_id
        for option, value in options.items():
            client.log_param(run, option, value)
        status = "FAILED"
        try:
            folder = output / f"trial-{trial.number}"
            result = train(
                architecture,
                splits,
                folder,
                base.replace(**options),
                on_epoch=lambda epoch: log_metrics(client, run, epoch),
            )
            best_score = score(result.best_metrics)
            client.log_metric(run, "score", best_score)
            status = "FINISHED"
        finally:
            client.set_terminated(run, status)
        return best_score

    try:
        # A learning rate that is too high ends one trial, not the search.
        study.optimize(objective, n_trials=trials, catch=(FloatingPointError,))
    finally:
        client.set_terminated(parent, "FINISHED")
    return study


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=Path, required=True, help="folder of train.h5 and val.h5")
    parser.add_argument("--output", type=Path, required=True, help="folder for the study and the trials' checkpoints")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="best", help="recipe that the trials change")
    parser.add_argument("--trials", type=int, default=20)
    options = parser.parse_args()
    base = RECIPES[options.recipe]
    study = sweep(options.architecture, options.splits, options.output, base, options.trials, Mlflow.from_environment())
    print(f"best of {len(study.trials)} trials: {study.best_value:.4f} with {study.best_params}")


if __name__ == "__main__":
    main()
