"""A real checkpoint in a real registry, loaded by MLflow alone."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from drive_assets.resources.mlflow.address import tracking_uri
from drive_assets.resources.mlflow.client import Mlflow
from drive_assets.resources.mlflow.tracking import TrackedRun
from drive_assets_tests.model.split_files import write_split_file
from model.dataset.split_file import read_split
from model.evaluation import calibration
from model.evaluation.best import promote
from model.evaluation.config import EvaluationConfig
from model.evaluation.evaluate import evaluate_checkpoint
from model.training.checkpoint import load_checkpoint
from model.training.data import load_split
from model.training.loop import train
from model.training.recipes import TrainingConfig

CONFIG = TrainingConfig(epochs=1, device="cpu", embedding_dim=16, hidden_dim=16, attention_num_heads=2)
ARCHITECTURE = "simple_cross_attention_lstm"
LOAD = """
import json, mlflow
model = mlflow.pyfunc.load_model("models:/drive-assets@best")
example = model.input_example
print(json.dumps({task: values.tolist() for task, values in model.predict(example).items()}))
print(json.dumps([spec.name for spec in model.metadata.signature.inputs]))
"""


def test_the_best_is_loaded_by_its_alias_and_predicts_calibrated(
    data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("train", "val", "test")):
        write_split_file(tmp_path / f"{name}.h5", frames=120, seed=seed, version="v1")
    trained = train(ARCHITECTURE, tmp_path, tmp_path / "out", CONFIG, "v1")
    scoring = EvaluationConfig(bootstrap_samples=10, importances=False, device="cpu")
    evaluation = evaluate_checkpoint(trained.best_model, tmp_path, tmp_path / ARCHITECTURE, scoring)
    best = promote(evaluation, tmp_path, trained.best_model, "key")
    folder, split = best.folder(tmp_path), read_split(tmp_path / "val.h5")
    example = {
        "telemetry": split.telemetry[None, :20],
        "detections": split.detections[None, :20],
        "detection_mask": split.detection_mask[None, :20],
        "region": split.region[:1],
    }
    store = Mlflow.from_environment()
    runs = [TrackedRun(store.prepared(), key, "name", tags={"recipe": "best"}) for key in ("key", "again")]
    ids = [store.complete(run, trained.history, 0) for run in runs]
    registered = [
        store.register_best(run_id, best, folder, example, "The first") for run_id in (ids[1], ids[0], ids[0])
    ]
    assert registered == ["1", "2", "2"]  # a version whose run is another is not reused: its files may have moved

    monkeypatch.setenv("MLFLOW_TRACKING_URI", tracking_uri())
    shown = subprocess.run([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, text=True, check=True)
    predicted, inputs = map(json.loads, shown.stdout.splitlines())
    assert inputs == ["telemetry", "detections", "detection_mask", "region"]
    network, _ = load_checkpoint(trained.best_model)
    calibrator = calibration.load(trained.best_model)
    assert calibrator is not None
    with torch.no_grad():
        logits = network(*load_split(tmp_path / "val.h5", CONFIG, "cpu").gather(torch.tensor([0]))[:3])
    for task in CONFIG.tasks:
        expected = calibrator.curves[task](torch.sigmoid(logits[task]).double().numpy())
        assert predicted[task] == pytest.approx(expected, rel=1e-5)

    client = MlflowClient()
    version = client.get_model_version_by_alias("drive-assets", "best")
    assert version.tags.items() >= {"architecture": ARCHITECTURE, "data_version": "v1", "recipe": "best"}.items()
    assert version.description.endswith("on test. The first.") and version.run_id == ids[0]
    assert version.tags["test_mean_pr_auc"] == f"{evaluation.test.mean_pr_auc:.4f}"
