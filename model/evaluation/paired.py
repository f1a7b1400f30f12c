"""Compares two models on the same windows, resampled together: what is hard for both cancels out."""

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from model.evaluation.measures import Array, blocks, bootstrap_areas, bootstrap_draws, interval
from model.evaluation.predictions import Predictions
from model.evaluation.results import Difference

SAMPLES = 500


@dataclass(frozen=True)
class Areas:
    """PR-AUC of each resample of a split's windows; NaN if undefined."""

    tasks: tuple[str, ...]
    plain: Array
    """(tasks,samples)"""
    onset: Array
    """(tasks,samples) over the windows at whose last frame the action is not under way"""

    @classmethod
    def of(cls, predictions: Predictions, samples: int = SAMPLES) -> Self:
        """Equal windows give equal resamples."""
        block = blocks(predictions.time_ms, predictions.recording)
        draws = bootstrap_draws(block, samples, seed=0)

        def areas(column: int, chosen: npt.NDArray[np.bool_]) -> Array:
            labels, scores = predictions.labels[chosen, column], predictions.probabilities[chosen, column]
            return bootstrap_areas(labels, scores, block[chosen], draws)[0]

        columns, known = range(len(predictions.tasks)), predictions.known
        onset = known & ~predictions.going_on
        return cls(
            predictions.tasks,
            np.stack([areas(column, known[:, column]) for column in columns]),
            np.stack([areas(column, onset[:, column]) for column in columns]),
        )

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
