"""The result of a training. Imports no torch: the worker sends it to the op."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Metrics = dict[str, float | int | None]
"""Figures of an epoch by name; None if the split leaves one undefined."""


@dataclass(frozen=True)
class TrainingResult:
    """The published files and figures of a training."""

    architecture: str
    fingerprint: str
    best_epoch: int
    best_metrics: Metrics
    history: list[Metrics]
    resumed_from: int
    """Epochs that an earlier, interrupted process had completed."""
    best_model: Path
    latest_checkpoint: Path
    training_history: Path
    parameters: int
    duration_s: float
    """Of this process, without the epochs of an earlier one."""
    windows_per_s: float
    """Training windows a second over all epochs, validation included."""
    device: str
    precision: str
    reused: bool = False
    """Whether it was published already, so that nothing was trained."""


def score(metrics: Mapping[str, float | int | None]) -> float:
    """What a training maximises: mean val PR-AUC, or minus val loss if no task has a positive label on val."""
    mean = metrics["val_pr_auc_mean"]
    return mean if mean is not None else -float(metrics["val_loss"] or 0.0)
