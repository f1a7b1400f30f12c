"""A sweep runs its trials as nested runs of one MLflow run, and continues where it stopped."""

from pathlib import Path

import pytest

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import GROUP
from drive_assets.training.sweep import sweep
from drive_assets_tests.model.split_files import write_split_file
from model.training.recipes import TrainingConfig

SMALL = TrainingConfig(
    epochs=1, embedding_dim=8, hidden_dim=8, attention_num_heads=2, decoder_num_layers=1, device="cpu", warmup_epochs=0
)


def test_trials_are_nested_runs_and_a_sweep_continues(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("optuna")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    for name in ("train", "val"):
        write_split_file(tmp_path / f"{name}.h5", frames=60)
    mlflow = Mlflow(artifacts=str(tmp_path / "artifacts"))

    def searched(trials: int) -> int:
        study = sweep(
            "simple_concat_lstm",
            tmp_path,
            tmp_path / "sweep",
            SMALL,
            trials,
            mlflow,
            lambda trial: {"learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-2)},
        )
        return len(study.trials)

    assert [searched(2), searched(1)] == [2, 3]
    client = mlflow.client()
    runs = client.search_runs([mlflow.prepared()])
    (parent,) = [run for run in runs if GROUP not in run.data.tags]
    trials = [run for run in runs if run.data.tags.get(GROUP) == parent.info.run_id]
    assert len(trials) == 3 and {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.metrics["score"] and 1e-3 <= float(run.data.params["learning_rate"]) <= 1e-2 for run in trials)
