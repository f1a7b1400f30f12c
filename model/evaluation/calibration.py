"""Calibration makes a network's probabilities agree with observed rates.

It is fitted on val, stored beside the checkpoint, and applied wherever a probability is shown.
"""

from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from model.common.errors import DataError
from model.common.files import sha256
from model.evaluation.predictions import Predictions
from model.evaluation.results import CALIBRATION, Result

Method = Literal["platt", "temperature", "isotonic", "none"]
_EDGE = 1e-7
_MIN_SAMPLES = 5
"""With fewer positives or negatives on val a task is not calibrated."""
Array = npt.NDArray[np.float64]


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
        columns = [
            self.curves[task](predictions.probabilities[:, column]) for column, task in enumerate(predictions.tasks)
        ]
        return predictions.replace(np.column_stack(columns))


def fit(val: Predictions, method: Method, checkpoint: str = "") -> Calibrator:
    """Fit on val. A task with too few positives or negatives there is not calibrated."""
    curves = {}
    for column, task in enumerate(val.tasks):
        windows = val.task(column)
        curves[task] = _fit(windows.labels, windows.probabilities, method)
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


def _fit(labels: npt.NDArray[np.bool_], probabilities: Array, method: Method) -> Curve:
    if method == "none" or min(labels.sum(), (~labels).sum()) < _MIN_SAMPLES:
        return Curve()
    if method == "isotonic":
        steps = IsotonicRegression(out_of_bounds="clip").fit(probabilities, labels)
        return Curve(points=list(zip(steps.X_thresholds_.tolist(), steps.y_thresholds_.tolist(), strict=True)))
    z = _logit(probabilities)
    if method == "platt" and np.ptp(z) > 0:
        line = LogisticRegression(C=np.inf).fit(z[:, None], labels)
        if line.coef_[0, 0] > 0:  # a falling line would reverse the ranking
            return Curve(slope=float(line.coef_[0, 0]), offset=float(line.intercept_[0]))
    best = minimize_scalar(lambda s: _log_loss(labels, np.exp(s) * z), bounds=(-4, 4), method="bounded")
    return Curve(slope=float(np.exp(best.x)))


def _log_loss(labels: npt.NDArray[np.bool_], z: Array) -> float:
    return float(np.logaddexp(0, np.where(labels, -z, z)).mean())


def _logit(probabilities: Array) -> Array:
    return np.asarray(logit(np.clip(probabilities, _EDGE, 1 - _EDGE)))
