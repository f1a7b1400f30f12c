"""What a training starts from: its splits, its loss, and the sizes of its network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.common.errors import DataError
from model.dataset.lead import are_vehicles
from model.dataset.window_data import WindowData
from model.factory import architecture_of
from model.network.hazard import with_transitions
from model.recording.schema import BINARY_LABELS
from model.training.loss import UnifiedFocalLoss
from model.training.recipes import TrainingConfig


def load_split(
    path: Path, config: TrainingConfig, device: torch.device | str, tasks: Sequence[str] | None = None
) -> WindowData:
    """A split as the networks of `config` take it, with labels of `tasks`, or of those that `config` asks for."""
    return WindowData.load(path, device, tasks or config.tasks, config.gear, config.detection_classes)


def load_train(path: Path, config: TrainingConfig, device: torch.device | str) -> WindowData:
    """Train's split with what the networks of `config` are taught: labels, or the hazards' transitions."""
    if config.head == "labels":
        return load_split(path, config, device, config.trained_tasks)
    return with_transitions(load_split(path, config, device, BINARY_LABELS))


def training_loss(config: TrainingConfig, tasks: Sequence[str], known: Tensor | None = None) -> UnifiedFocalLoss:
    """The loss of `tasks`, labels or hazards; those that `config` does not ask for have the auxiliary weight.

    With `known` (W,tasks), where those of train are known, hazards add up to the likelihood of a window's course:
    one that is seldom met counts as seldom.
    """
    weights = config.weights
    if config.head == "hazard" and known is not None:
        shares = known.float().mean(dim=0).tolist()
        weights |= {task: weights[task] * share for task, share in zip(tasks, shares, strict=True)}
    if config.loss == "bce":  # the focal loss that weighs everything alike is half the cross-entropy
        alpha, gamma = dict.fromkeys(tasks, 0.5), dict.fromkeys(tasks, 0.0)
        return UnifiedFocalLoss(tasks, alpha, gamma, {task: 2 * weights[task] for task in tasks})
    return UnifiedFocalLoss(tasks, config.focal_alpha, config.focal_gamma, weights)


def model_config(architecture: str, config: TrainingConfig, data: WindowData) -> dict[str, Any]:
    """The keys of `create_model_variant` for an architecture, sized by `config` and fed by `data`."""
    return {
        **architecture_of(architecture),
        "telemetry_inputs": list(data.inputs),
        "telemetry_input_dim": data.telemetry_dim,
        "detection_input_dim_per_box": data.detection_dim,
        "vehicle_flag": not all(are_vehicles(data.class_names)),
        "prediction_tasks": config.trained_tasks,
        **config.network,
    }


def check_same_inputs(train_data: WindowData, val_data: WindowData) -> None:
    """Raises DataError if a network of one split does not fit the other."""
    for name in ("class_names", "length", "inputs"):
        ours, theirs = getattr(train_data, name), getattr(val_data, name)
        if ours != theirs:
            raise DataError(
                f"{name} differs: {ours} in {train_data.path}, {theirs} in {val_data.path}; make both splits again."
            )
