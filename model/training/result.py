"""What a training made. Free of torch: it passes from the worker to the op."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

Metrics = dict[str, float | int | None]
"""Figures of an epoch by name; None where a split leaves one undefined."""


@dataclass(frozen=True)
class TrainingResult:
    """What a training made."""

    architecture: str
    fingerprint: str
    best_epoch: int
    best_metrics: Metrics
    history: list[Metrics]
    resumed_from: int
    """Epochs that an earlier, killed run had done."""
    best_model: Path
    latest_checkpoint: Path
    training_history: Path
    parameters: int
    duration_s: float
    """Of this run, without the epochs of an earlier one."""
    windows_per_s: float
    """Training windows a second over the history's epochs, validation included."""
    device: str
    precision: str
    taken_over: bool = False
    """Whether it was published before, so that nothing was trained."""


def score(metrics: Mapping[str, float | int | None]) -> float:
    """What a run maximises: mean val PR-AUC, or minus val loss where no task has a positive on val."""
    mean = metrics["val_pr_auc_mean"]
    return mean if mean is not None else -float(metrics["val_loss"] or 0.0)
