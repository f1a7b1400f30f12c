"""Evaluating one checkpoint: thresholds chosen on val, figures with intervals on test, and the plots."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from model.common.config import from_dict, to_dict
from model.common.errors import DataError
from model.common.figures import save_png
from model.common.files import atomic_path, write_json
from model.dataset.window_data import WindowData
from model.dataset.windows import read_fingerprint, read_split
from model.evaluation.config import EvaluationConfig
from model.evaluation.events import event_figures
from model.evaluation.measures import (
    binary_metrics,
    blocks,
    bootstrap_average_precision,
    bootstrap_draws,
    choose_threshold,
    interval,
)
from model.evaluation.plots import Predictions, evaluation_figures
from model.training.loop import choose_device, load_checkpoint, load_split
from model.training.recipes import TrainingConfig

SCHEMA_VERSION = 1
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
) -> dict[str, Any]:
    """Score a checkpoint on val and test; write metrics.json, predictions_{val,test}.npz and plots into `output`.

    Raises:
        DataError: no checkpoint of ours or not of `architecture`, splits missing, or others than it was trained on:
            what is in test now may have been in train then.
    """
    model, content = load_checkpoint(checkpoint, architecture)
    training = from_dict(TrainingConfig, content["training_config"])
    for name in SCORED:
        path = splits / f"{name}.h5"
        version = read_fingerprint(path)
        if version and version != content["data_version"]:
            raise DataError(
                f"{checkpoint} was trained on data version {content['data_version']}, {path} is {version}: train again "
                "on these splits."
            )
    device = choose_device(config.device)
    predictions = {name: _predictions(model.to(device), splits / f"{name}.h5", training, config) for name in SCORED}
    if predictions["test"].class_names != tuple(content["class_names"]):
        raise DataError(
            f"{checkpoint} was trained on classes {', '.join(content['class_names'])}, the splits hold "
            f"{', '.join(predictions['test'].class_names)}: train again."
        )
    metrics: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "architecture": content["architecture"],
        "data_version": content["data_version"],
        "epoch": content["epoch"],
        "evaluation_config": to_dict(config),
        "tasks": training.tasks,
        "val": {},
        "test": {},
    }
    thresholds: dict[str, float | None] = {}
    for column, task in enumerate(training.tasks):
        thresholds[task] = choose_threshold(*predictions["val"].task(column)[:2])
        for name in SCORED:
            metrics[name][task] = _task_figures(predictions[name], column, task, thresholds[task], config)
    for name in SCORED:
        metrics[name]["mean_pr_auc"] = _mean([metrics[name][task]["pr_auc"] for task in training.tasks])
        _save_predictions(output / f"predictions_{name}.npz", predictions[name])
    for stem, figure in evaluation_figures(predictions["test"], thresholds, content["architecture"]).items():
        save_png(figure, output / f"{stem}.png")
    write_json(output / "metrics.json", metrics)
    return metrics


def _predictions(model: nn.Module, path: Path, training: TrainingConfig, config: EvaluationConfig) -> Predictions:
    data = load_split(path, training, choose_device(config.device))
    split = read_split(path)
    last = split.window_start.astype(np.int64) + split.window.length - 1
    return Predictions(
        tasks=tuple(training.tasks),
        labels=data.labels.cpu().numpy() > 0.5,
        known=data.label_mask.cpu().numpy(),
        probabilities=predict(model, data, config.batch_size),
        time_ms=split.time_ms[last],
        recording=split.recording[last],
        recordings=split.recordings,
        class_names=split.class_names,
    )


def _task_figures(
    predictions: Predictions, column: int, task: str, threshold: float | None, config: EvaluationConfig
) -> dict[str, Any]:
    labels, scores, time_ms, recording = predictions.task(column)
    figures: dict[str, Any] = dict(binary_metrics(labels, scores, threshold))
    block = blocks(time_ms, recording)
    draws = bootstrap_draws(block, config.bootstrap_samples, config.seed)
    resampled = bootstrap_average_precision(labels, scores, block, draws)
    figures["pr_auc_interval"] = interval(resampled, config.confidence_level)
    figures["random_pr_auc"] = figures["positive_rate"]
    if threshold is not None:
        horizon = float(task.rsplit("_", 1)[1].removesuffix("s"))
        figures["events"] = dataclasses.asdict(event_figures(labels, scores, threshold, time_ms, recording, horizon))
    return figures


def _save_predictions(path: Path, predictions: Predictions) -> None:
    with atomic_path(path) as temporary:
        np.savez_compressed(
            temporary,
            tasks=np.array(predictions.tasks),
            labels=predictions.labels,
            known=predictions.known,
            probabilities=predictions.probabilities,
            time_ms=predictions.time_ms,
            recording=predictions.recording,
        )


def _mean(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
