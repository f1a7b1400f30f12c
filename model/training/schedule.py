"""Learning rate, best epoch and end of a training, derived from the scores of its epochs."""

import math
from collections.abc import Mapping

from model.training.recipes import TrainingConfig

Metrics = dict[str, float | int | None]
"""Figures of an epoch by name; None if the split leaves one undefined."""


def score(metrics: Mapping[str, float | int | None]) -> float:
    """What a training maximises: mean val PR-AUC, or minus val loss if no task has a positive label on val."""
    mean = metrics["val_pr_auc_mean"]
    return mean if mean is not None else -float(metrics["val_loss"] or 0.0)


class Schedule:
    """Learning rate, best epoch and end of a training after the scores so far (higher is better)."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.epoch = 0
        self.best_epoch = -1
        self.best_score = float("-inf")
        self._factor = 1.0
        self._waited_for_rate = 0
        self._waited_for_end = 0

    @property
    def rate(self) -> float:
        """The learning rate of the next epoch."""
        config = self.config
        if self.epoch < config.warmup_epochs:
            share = config.warmup_start + (1 - config.warmup_start) * self.epoch / config.warmup_epochs
            return config.learning_rate * share
        if config.schedule == "cosine":
            done = (self.epoch - config.warmup_epochs) / max(config.epochs - config.warmup_epochs, 1)
            share = config.rate_floor + (1 - config.rate_floor) * (1 + math.cos(math.pi * done)) / 2
            return config.learning_rate * share
        return config.learning_rate * self._factor

    @property
    def ended(self) -> bool:
        return self.epoch >= self.config.epochs or self._waited_for_end >= self.config.early_stop_patience

    def step(self, metrics: Metrics) -> None:
        """Add a completed epoch."""
        config, reached = self.config, score(metrics)
        if reached > self.best_score:
            self.best_epoch, self.best_score = self.epoch, reached
            self._waited_for_rate = self._waited_for_end = 0
        elif self.epoch >= config.warmup_epochs:
            self._waited_for_rate += 1
            self._waited_for_end += 1
        if self._waited_for_rate > config.plateau_patience:
            self._factor = max(self._factor * config.plateau_factor, config.rate_floor)
            self._waited_for_rate = 0
        self.epoch += 1
