"""Compares two models on the same windows, resampled together: what is hard for both cancels out."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from model.evaluation.measures import Array, Labels, blocks, bootstrap_areas, bootstrap_draws, interval
from model.evaluation.predictions import Predictions
from model.evaluation.results import Difference

SAMPLES = 500


@dataclass(frozen=True)
class Areas:
    """PR-AUC (tasks,samples) of each resample of a split's windows; NaN if undefined."""

    tasks: tuple[str, ...]
    plain: Array
    onset: Array
    """Over the windows at whose last frame the action is not under way"""

    @classmethod
    def of(cls, predictions: Predictions, samples: int = SAMPLES) -> Self:
        """Equal windows give equal resamples."""
        block = blocks(predictions.time_ms, predictions.recording)
        draws = bootstrap_draws(block, samples, seed=0)

        def areas(chosen: Labels) -> Array:
            columns = zip(chosen.T, predictions.labels.T, predictions.probabilities.T, strict=True)
            return np.stack([bootstrap_areas(y[rows], p[rows], block[rows], draws)[0] for rows, y, p in columns])

        return cls(predictions.tasks, areas(predictions.known), areas(predictions.known & ~predictions.going_on))

    def minus(self, other: Self) -> Difference:
        """Intervals of the difference in PR-AUC to another model, by task and of the means over tasks."""
        plain, onset = self.plain - other.plain, self.onset - other.onset
        return Difference(
            tasks=dict(zip(self.tasks, map(interval, plain), strict=True)),
            onset_tasks=dict(zip(self.tasks, map(interval, onset), strict=True)),
            mean=interval(_mean(plain)),
            onset_mean=interval(_mean(onset)),
        )


def _mean(differences: Array) -> Array:
    """(samples,) mean over the tasks that are defined in most resamples."""
    usable = differences[np.isfinite(differences).mean(axis=1) > 0.5]
    return usable.mean(axis=0) if len(usable) else np.full(differences.shape[1], np.nan)
