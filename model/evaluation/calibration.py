"""Calibration makes a network's probabilities agree with observed rates.

It is fitted on val, stored beside the checkpoint, and applied wherever a probability is shown.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from model.common.errors import DataError
from model.common.files import sha256
from model.evaluation.measures import Array, Labels
from model.evaluation.predictions import Predictions
from model.evaluation.results import CALIBRATION, Result

Method = Literal["platt", "temperature", "isotonic", "none"]
_EDGE = 1e-7
_LARGEST_LOGIT = 30.0
"""On val, where labels that probabilities separate allow any slope: larger logits round to the probability 1."""
_MIN_SAMPLES = 5
"""With fewer positives or negatives on val a task is not calibrated."""


class Curve(Result):
    """The map of one task: sigmoid(slope * logit + offset), or a rising line through `points` if given."""

    slope: float = 1.0
    offset: float = 0.0
    points: list[tuple[float, float]] | None = None

    def __call__(self, probabilities: Array) -> Array:
        """Calibrated probabilities (W,)."""
        if self.points is not None:
            x, y = np.array(self.points).T
            return np.interp(probabilities, x, y)
        if (self.slope, self.offset) == (1.0, 0.0):
            return probabilities
        return np.asarray(expit(self.slope * _logit(probabilities) + self.offset))


class Calibrator(Result):
    """The content of calibration.json."""

    method: Method
    checkpoint: str
    """SHA-256 of the checkpoint file that it belongs to; empty for a baseline"""
    curves: dict[str, Curve]

    def apply(self, predictions: Predictions) -> Predictions:
        """The same windows with calibrated probabilities."""
        columns = zip(predictions.tasks, predictions.probabilities.T, strict=True)
        return predictions.replace(np.column_stack([self.curves[task](column) for task, column in columns]))


def fit(val: Predictions, method: Method, checkpoint: str = "") -> Calibrator:
    """Fit on val. A task with too few positives or negatives there is not calibrated."""
    windows = {task: val.task(column) for column, task in enumerate(val.tasks)}
    curves = {task: fit_curve(known.labels, known.probabilities, method) for task, known in windows.items()}
    return Calibrator(method=method, checkpoint=checkpoint, curves=curves)


def load(checkpoint: Path) -> Calibrator | None:
    """The calibrator stored beside a checkpoint; None if there is none.

    Raises:
        DataError: it belongs to another checkpoint.
    """
    path = checkpoint.with_name(CALIBRATION)
    if not path.is_file():
        return None
    calibrator = Calibrator.read(path)
    if calibrator.checkpoint != sha256(checkpoint):
        raise DataError(f"{path} belongs to another checkpoint than {checkpoint.name} beside it: evaluate again.")
    return calibrator


def fit_curve(labels: Labels, probabilities: Array, method: Method) -> Curve:
    if method == "none" or min(labels.sum(), (~labels).sum()) < _MIN_SAMPLES:
        return Curve()
    if method == "isotonic":
        steps = IsotonicRegression(out_of_bounds="clip").fit(probabilities, labels)
        return Curve(points=list(zip(steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist(), strict=True)))
    z = _logit(probabilities)[:, None]
    line = LogisticRegression(C=np.inf, fit_intercept=method == "platt" and np.ptp(z) > 0).fit(z, labels)
    scale = min(1.0, _LARGEST_LOGIT / max(np.abs(line.decision_function(z)).max(), _EDGE))
    slope, (offset,) = scale * line.coef_.item(), (scale * np.atleast_1d(line.intercept_)).tolist()
    return Curve(slope=slope, offset=offset) if slope > 0 else Curve()  # a falling line would reverse the ranking


def _logit(probabilities: Array) -> npt.NDArray[np.float64]:
    return np.asarray(logit(np.clip(probabilities, _EDGE, 1 - _EDGE)))
