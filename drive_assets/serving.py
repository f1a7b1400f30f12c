"""Loads models of MLflow's registry: `mlflow.pyfunc.load_model("models:/drive-assets@best").predict(windows)`.

A model's files are a checkpoint of plain tensors and its calibration; nothing else is unpickled. Registered models
store the name of this module: it must not be moved.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.evaluation.predictor import Arrays

CHECKPOINT = "best_model.pt"


class ServedModel:
    """The interface that MLflow requires of a model."""

    def __init__(self, checkpoint: Path) -> None:
        from model.evaluation.predictor import Predictor

        self.predictor = Predictor(checkpoint)

    def predict(self, model_input: "Arrays", params: Any = None) -> Any:
        """As `Predictor.predict`."""
        return self.predictor.predict(model_input)


def _load_pyfunc(path: str) -> ServedModel:
    return ServedModel(Path(path) / CHECKPOINT)
