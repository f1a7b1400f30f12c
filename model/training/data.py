"""The splits as a recipe needs them, the order of an epoch, and the network that fits them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.dataset.lead import are_vehicles
from model.dataset.window_data import WindowData
from model.factory import architecture_of
from model.network.hazard import with_transitions
from model.recording.schema import BINARY_LABELS
from model.training.recipes import TrainingConfig


def load_split(
    path: Path,
    config: TrainingConfig,
    device: torch.device | str,
    data_version: str | None = None,
    tasks: Sequence[str] | None = None,
) -> WindowData:
    """A split with the features that `config` asks for, and labels of `tasks`, by default those of `config`.

    Raises:
        DataError: as `WindowData.load`, among others if the split is not of the given `data_version`.
    """
    return WindowData.load(path, device, tasks or config.tasks, config.gear, config.detection_classes, data_version)


def load_train(path: Path, config: TrainingConfig, device: torch.device | str, data_version: str) -> WindowData:
    """The train split with what the network learns: labels, or the transitions of hazards."""
    if config.head == "labels":
        return load_split(path, config, device, data_version, config.trained_tasks)
    return with_transitions(load_split(path, config, device, data_version, BINARY_LABELS))


def model_config(architecture: str, config: TrainingConfig, data: WindowData) -> dict[str, Any]:
    """Arguments of `create_model_variant` for an architecture with the sizes of `config` and the inputs of `data`."""
    return {
        **architecture_of(architecture),
        "telemetry_inputs": list(data.inputs),
        "telemetry_input_dim": data.telemetry_dim,
        "detection_input_dim_per_box": data.detection_dim,
        "vehicle_flag": not all(are_vehicles(data.class_names)),
        "coast_threshold": data.coast_threshold,
        "prediction_tasks": config.trained_tasks,
        **config.network,
    }


def epoch_order(data: WindowData, config: TrainingConfig, seed: int) -> Tensor:
    """The windows of an epoch (W,): each once, or with balanced sampling half of them with a positive label."""
    generator = torch.Generator().manual_seed(seed)
    # With hazards, the onsets count as positive labels.
    columns = [column for column, name in enumerate(data.tasks) if name in config.tasks or "_onset_" in name]
    positive = (data.labels[:, columns] > 0.5).any(dim=1).cpu()
    share = positive.double().mean().item()
    if config.sampling == "all" or share in (0.0, 1.0):
        return data.order(generator)
    weights = torch.where(positive, 0.5 / share, 0.5 / (1 - share))
    return torch.multinomial(weights, len(data), True, generator=generator).to(data.first_row.device)
