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
from model.dataset.windows import Split, read_split
from model.evaluation import calibration
from model.evaluation.config import EvaluationConfig
from model.evaluation.plots import evaluation_figures
from model.evaluation.predictions import Predictions
from model.evaluation.results import EVALUATION, SCHEMA_VERSION, Evaluation
from model.evaluation.scoring import choose_thresholds, score
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
    checkpoint: Path, splits: Path, output: Path, config: EvaluationConfig, architecture: str | None = None
) -> Evaluation:
    """Score a checkpoint on val and test; write metrics.json, predictions_{val,test}.npz and plots into `output`.

    The calibrator that val gives is written beside the checkpoint; every probability is calibrated by it.

    Raises:
        DataError: no checkpoint of ours or not of `architecture`, splits missing, or others than it was trained on:
            what is in test now may have been in train then.
    """
    model, content = load_checkpoint(checkpoint, architecture)
    training = TrainingConfig(**content["training_config"])
    model.to(choose_device(config.device))
    raw = {name: _predictions(model, splits / f"{name}.h5", checkpoint, content, config) for name in SCORED}
    calibrator = calibration.fit(raw["val"], config.calibration, sha256(checkpoint))
    val, test = (calibrator.apply(raw[name]) for name in SCORED)
    thresholds = choose_thresholds(val, config)
    evaluation = Evaluation(
        schema_version=SCHEMA_VERSION,
        architecture=content["architecture"],
        data_version=content["data_version"],
        epoch=content["epoch"],
        evaluation_config=config,
        tasks=list(training.tasks),
        val=score(val, raw["val"], thresholds, config),
        test=score(test, raw["test"], thresholds, config),
    )
    calibrator.write(checkpoint.with_name(calibration.FILE))
    val.save(output / "predictions_val.npz")
    test.save(output / "predictions_test.npz")
    for stem, figure in evaluation_figures(
        test, {task: t.f1 for task, t in thresholds.items()}, evaluation.architecture
    ).items():
        save_png(figure, output / f"{stem}.png")
    evaluation.write(output / EVALUATION)
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
