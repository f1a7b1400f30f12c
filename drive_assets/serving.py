"""Loads models of MLflow's registry: `mlflow.pyfunc.load_model("models:/drive-assets@best").predict(windows)`.

A model's files are a checkpoint of plain tensors and its calibration; nothing else is unpickled. Registered models
store the name of this module: it must not be moved.
"""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.evaluation.predictor import Predictor

CHECKPOINT = "best_model.pt"


def _load_pyfunc(path: str) -> "Predictor":
    """MLflow calls this function, and then `predict` of what it returns."""
    from model.evaluation.predictor import Predictor

    return Predictor(Path(path) / CHECKPOINT)
