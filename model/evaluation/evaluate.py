"""Evaluating one checkpoint: thresholds chosen on val, figures with intervals on test, and the plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model.common.errors import DataError
from model.common.figures import save_png
from model.common.files import sha256
from model.dataset.window_data import WindowData
from model.dataset.windows import Split, read_fingerprint, read_split
from model.evaluation import calibration
from model.evaluation.config import EvaluationConfig
from model.evaluation.plots import evaluation_figures
from model.evaluation.predictions import Predictions
from model.evaluation.results import Evaluation
from model.evaluation.scoring import evaluate_predictions
from model.training.loop import choose_device, load_checkpoint, load_split
from model.training.recipes import TrainingConfig

SCORED = ("val", "test")


@torch.no_grad()
def predict(model: nn.Module, data: WindowData, batch_size: int) -> npt.NDArray[np.float64]:
    """Probabilities (W,tasks) of every window."""
    model.eval()
    outputs = []
    for batch in data.batches(batch_size):
        logits = model(batch.telemetry_seq, batch.detection_seq, batch.detection_mask)
        outputs.append(torch.stack([logits[task] for task in data.tasks], dim=1).float())
    return torch.cat(outputs).sigmoid().double().cpu().numpy()


def evaluate_checkpoint(
    checkpoint: Path,
    splits: Path,
    output: Path,
    config: EvaluationConfig,
    architecture: str | None = None,
    other_data: bool = False,
) -> Evaluation:
    """Score a checkpoint on val and test; write metrics.json, predictions_{val,test}.npz and plots into `output`.

    The calibrator that val gives is written beside the checkpoint; every probability is calibrated by it.

    Args:
        other_data: score it on splits that it was not trained on too; the evaluation then bears their data version.

    Raises:
        DataError: no checkpoint of ours or not of `architecture`, splits missing, or others than it was trained on:
            what is in test now may have been in train then.
    """
    model, content = load_checkpoint(checkpoint, architecture)
    model.to(choose_device(config.device))
    if other_data:
        content["data_version"] = read_fingerprint(splits / "test.h5") or content["data_version"]
    raw = {name: _predictions(model, splits / f"{name}.h5", checkpoint, content, config) for name in SCORED}
    evaluation, calibrator = evaluate_predictions(
        content["architecture"],
        content["data_version"],
        content["epoch"],
        raw["val"],
        raw["test"],
        config,
        output,
        sha256(checkpoint),
    )
    calibrator.write(checkpoint.with_name(calibration.FILE))
    thresholds = {task: evaluation.test[task].threshold for task in evaluation.tasks}
    test = calibrator.apply(raw["test"])
    for stem, figure in evaluation_figures(test, thresholds, evaluation.architecture).items():
        save_png(figure, output / f"{stem}.png")
    return evaluation


def _predictions(
    model: nn.Module, path: Path, checkpoint: Path, content: Mapping[str, Any], config: EvaluationConfig
) -> Predictions:
    split = read_split(path)
    _check_split(split, path, checkpoint, content)
    training = TrainingConfig(**content["training_config"])
    data = load_split(path, training, choose_device(config.device))
    return Predictions.of(split, tuple(training.tasks), predict(model, data, config.batch_size))


def _check_split(split: Split, path: Path, checkpoint: Path, content: Mapping[str, Any]) -> None:
    """Raises DataError unless a checkpoint was trained on the data, classes and channels that a split holds."""
    if split.fingerprint and split.fingerprint != content["data_version"]:
        raise DataError(
            f"{checkpoint} was trained on data version {content['data_version']}, {path} is {split.fingerprint}: train "
            "again on these splits."
        )
    for what, ours, theirs in (
        ("classes", content["class_names"], split.class_names),
        ("channels", content["inputs"], split.feature_names),
    ):
        if tuple(ours) != theirs:
            raise DataError(
                f"{checkpoint} was trained on {what} {', '.join(ours)}, {path} holds {', '.join(theirs)}: train again."
            )
