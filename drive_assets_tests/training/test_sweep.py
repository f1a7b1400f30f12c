"""The example of a sweep: trials are nested runs of one MLflow run, and a second call continues."""

import subprocess
import sys
from pathlib import Path

import pytest

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import GROUP

SWEEP = Path(__file__).parents[2] / "examples" / "sweep.py"


@pytest.mark.timeout(600)
def test_trials_are_nested_runs_and_a_sweep_continues(splits: Path, tmp_path: Path) -> None:
    pytest.importorskip("optuna")
    for trials in ("2", "1"):
        options = ["--splits", splits, "--output", tmp_path / "sweep", "--trials", trials]
        subprocess.run([sys.executable, SWEEP, *options], check=True)
    mlflow = Mlflow.from_environment()
    runs = mlflow.client().search_runs([mlflow.prepared()])
    (parent,) = [run for run in runs if GROUP not in run.data.tags]
    nested = [run for run in runs if run.data.tags.get(GROUP) == parent.info.run_id]
    assert len(nested) == 3 and {run.info.status for run in runs} == {"FINISHED"}
    assert all(run.data.metrics["score"] and 1e-3 <= float(run.data.params["learning_rate"]) <= 2e-2 for run in nested)
