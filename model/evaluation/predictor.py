"""A trained network for its users: raw windows in, calibrated probabilities out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.dataset.features import detection_features, telemetry_features
from model.evaluation import calibration
from model.training.checkpoint import load_checkpoint
from model.training.recipes import TrainingConfig

Arrays = Mapping[str, npt.NDArray[Any]]


class Predictor:
    """A checkpoint on the CPU, with the calibration beside it, if there is one."""

    def __init__(self, checkpoint: Path) -> None:
        self.network, self.content = load_checkpoint(checkpoint)
        self.config = TrainingConfig(**self.content["training_config"])
        self.calibrator = calibration.load(checkpoint)

    @torch.no_grad()
    def predict(self, windows: Arrays) -> dict[str, npt.NDArray[np.float64]]:
        """The probability of each task in each window, {task: (B,)}.

        Args:
            windows: as in a split file: `telemetry` (B,T,C), raw, a column a channel of the checkpoint's inputs;
                `detections` (B,T,N,7): class, confidence, x1, y1, x2, y2 in px of the region of interest, area;
                `detection_mask` (B,T,N), True for real detections; `region` (B,2), its width and height in px.
        """
        telemetry, detections, region = (
            torch.from_numpy(np.asarray(windows[name], np.float32)) for name in ("telemetry", "detections", "region")
        )
        mask = torch.from_numpy(np.asarray(windows["detection_mask"], bool))
        logits = self.network(
            telemetry_features(telemetry, self.config.gear, self.content["inputs"]),
            detection_features(
                detections, mask, region[:, None], self.content["class_names"], self.config.detection_classes
            ),
            mask,
        )
        raw = {task: logits[task].sigmoid().double().numpy() for task in self.config.tasks}
        return raw if self.calibrator is None else {task: self.calibrator.curves[task](p) for task, p in raw.items()}
