"""A real checkpoint in a real registry: loaded by MLflow alone, also where the data root was moved."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.registry import TrainedModel
from drive_assets.resources.mlflow.tracking import TrackedRun
from drive_assets_tests.model.split_files import write_split_file
from model.common.files import sha256
from model.dataset.split_file import read_split
from model.evaluation.calibration import Calibrator, Curve
from model.evaluation.results import CALIBRATION
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.recipes import TrainingConfig

CONFIG = TrainingConfig(epochs=1, device="cpu", embedding_dim=16, hidden_dim=16, attention_num_heads=2)
LOAD = """
import json, mlflow
model = mlflow.pyfunc.load_model("models:/drive-assets@best")
example = model.input_example
print(json.dumps({task: found.tolist() for task, found in model.predict(example).items()}))
print(json.dumps([spec.name for spec in model.metadata.signature.inputs]))
"""


def test_the_best_is_loaded_by_its_alias_and_predicts_calibrated(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("train", "val")):
        write_split_file(tmp_path / f"{name}.h5", frames=60, seed=seed)
    made = train("simple_cross_attention_lstm", tmp_path, tmp_path / "out", CONFIG, "v1")
    calibrator = Calibrator(
        method="platt", checkpoint=sha256(made.best_model), curves={task: Curve(slope=2.0) for task in CONFIG.tasks}
    )
    calibrator.write(made.best_model.with_name(CALIBRATION))
    split = read_split(tmp_path / "val.h5")
    model = TrainedModel(
        name="simple_cross_attention_lstm",
        checkpoint=calibrator.checkpoint,
        files=[made.best_model, made.best_model.with_name(CALIBRATION)],
        example={
            "telemetry": split.telemetry[None, :20],
            "detections": split.detections[None, :20],
            "detection_mask": split.detection_mask[None, :20],
            "region": split.region[:1],
        },
        tasks=CONFIG.tasks,
        tags={"architecture": "simple_cross_attention_lstm", "data_version": "v1"},
        figures={"test_mean_pr_auc": 0.5, "test_mean_onset_pr_auc": None},
        description="The first.",
    )
    store = Mlflow.from_environment()
    run = TrackedRun(store.prepared(), "key", "name", tags={"recipe": "best"})
    run_id = store.complete(run, made.history, 0)
    assert [store.register_best("drive-assets", run_id, model) for _ in range(2)] == ["1", "1"]

    moved = tmp_path / "moved"
    shutil.move(data_root, moved)
    monkeypatch.setenv("DRIVE_ASSETS_DATA", str(moved))
    prepare = "from drive_assets.resources.mlflow.client import Mlflow; Mlflow.from_environment().prepared()\n"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{moved / 'mlflow.db'}")
    shown = subprocess.run([sys.executable, "-c", prepare + LOAD], stdout=subprocess.PIPE, text=True, check=True)
    predicted, inputs = map(json.loads, shown.stdout.splitlines())
    assert inputs == ["telemetry", "detections", "detection_mask", "region"]
    network, _ = load_checkpoint(made.best_model)
    data = load_split(tmp_path / "val.h5", CONFIG, "cpu")
    with torch.no_grad():
        logits = network(*data.gather(torch.tensor([0]))[:3])
    for task in CONFIG.tasks:
        assert predicted[task] == pytest.approx([torch.sigmoid(2 * logits[task]).item()], rel=1e-5)

    client = MlflowClient()
    version = client.get_model_version_by_alias("drive-assets", "best")
    assert version.tags.items() >= {"architecture": "simple_cross_attention_lstm", "recipe": "best"}.items()
    assert (version.description, version.run_id) == ("The first.", run_id)
    (logged,) = client.search_logged_models([run.experiment])
    assert (str(logged.status), logged.source_run_id) == ("READY", run_id)
    assert logged.metrics[0].value == 0.5
    assert client.get_run(run_id).outputs.model_outputs[0].model_id == logged.model_id
    assert not data_root.exists()
