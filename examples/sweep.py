"""Search for a better recipe: trials of Optuna, scored on val, each a nested run in MLflow.

    python examples/sweep.py --splits data/datasets/multimodal --output build/sweep --trials 30

The study in `--output` continues at the next start. Needs the extra `sweep`. To search other options, change `options`.
"""

import argparse
from pathlib import Path
from typing import Any

import optuna

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import GROUP, log_metrics
from model.network.architectures import ARCHITECTURES
from model.training.loop import train
from model.training.recipes import RECIPES
from model.training.schedule import score


def options(trial: optuna.Trial) -> dict[str, Any]:
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=Path, required=True, help="folder of train.h5 and val.h5")
    parser.add_argument("--output", type=Path, required=True, help="folder for the study and the trials' checkpoints")
    parser.add_argument("--architecture", choices=ARCHITECTURES, default=ARCHITECTURES[0])
    parser.add_argument("--recipe", choices=sorted(RECIPES), default="best", help="recipe that the trials change")
    parser.add_argument("--trials", type=int, default=20)
    given = parser.parse_args()

    mlflow = Mlflow.from_environment()
    client, experiment, base = mlflow.client(), mlflow.prepared(), RECIPES[given.recipe]
    given.output.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=f"sqlite:///{given.output / 'study.db'}",
        study_name=f"recipe-{given.architecture}",
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=base.seed),
        load_if_exists=True,
    )
    if GROUP not in study.user_attrs:
        parent = client.create_run(experiment, run_name=f"sweep of {given.architecture}")
        study.set_user_attr(GROUP, parent.info.run_id)
    tags = {GROUP: study.user_attrs[GROUP], "architecture": given.architecture}

    def objective(trial: optuna.Trial) -> float:
        chosen = options(trial)
        run = client.create_run(
            experiment, tags=tags, run_name=f"{given.architecture}, trial {trial.number}"
        ).info.run_id
        for option, value in chosen.items():
            client.log_param(run, option, value)
        status = "FAILED"
        try:
            folder, config = given.output / f"trial-{trial.number}", base.replace(**chosen)
            result = train(
                given.architecture, given.splits, folder, config, on_epoch=lambda epoch: log_metrics(client, run, epoch)
            )
            best = score(result.best_metrics)
            client.log_metric(run, "score", best)
            status = "FINISHED"
        finally:
            client.set_terminated(run, status)
        return best

    try:
        # A learning rate that is too high ends one trial, not the search.
        study.optimize(objective, n_trials=given.trials, catch=(FloatingPointError,))
    finally:
        client.set_terminated(study.user_attrs[GROUP], "FINISHED")
    print(f"best of {len(study.trials)} trials: {study.best_value:.4f} with {study.best_params}")


if __name__ == "__main__":
    main()
