"""The network of a bundle: raw telemetry and detections in, calibrated probabilities out, exported to ONNX."""

import logging
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from model.bundle.runtime.bundle import NETWORK_INPUTS
from model.dataset.features import detection_features, telemetry_features
from model.evaluation.calibration import Calibrator, Curve
from model.training.recipes import TrainingConfig

OUTPUT = "probabilities"


class BundledNetwork(nn.Module):
    """Features, network and calibration in one."""

    def __init__(
        self, model: nn.Module, content: Mapping[str, Any], calibrator: Calibrator, region: tuple[int, int]
    ) -> None:
        """Args:
        content: the rest of the checkpoint.
        region: width and height of the region of interest, px.
        """
        super().__init__()
        training = TrainingConfig(**content["training_config"])
        self.model = model
        self.inputs, self.class_names = content["inputs"], content["class_names"]
        self.gear, self.classes = training.gear, training.detection_classes
        self.tasks = training.tasks
        self.calibration = nn.ModuleList(Calibration(calibrator.curves[task]) for task in training.tasks)
        self.register_buffer("region", torch.tensor(region, dtype=torch.float32))
        self.region: Tensor

    def forward(self, telemetry: Tensor, detections: Tensor, mask: Tensor) -> Tensor:
        """telemetry (1,T,C) in the channels' units, detections (1,T,N,7), mask (1,T,N) -> probabilities (1,tasks)."""
        features = telemetry_features(telemetry, self.gear, self.inputs)
        region = self.region.expand(*mask.shape[:2], 2)
        boxes = detection_features(detections, mask, region, self.class_names, self.classes)
        logits = self.model(features, boxes, mask)
        calibrated = [curve(logits[task].sigmoid()) for task, curve in zip(self.tasks, self.calibration, strict=True)]
        return torch.stack(calibrated, dim=-1)


class Calibration(nn.Module):
    """A calibration curve, as `Curve`."""

    def __init__(self, curve: Curve) -> None:
        super().__init__()
        self.slope, self.offset = curve.slope, curve.offset
        points = None if curve.points is None else torch.tensor(curve.points)
        self.register_buffer("points", points)
        self.points: Tensor | None

    def forward(self, probability: Tensor) -> Tensor:
        """(B,) -> (B,)"""
        if self.points is None:
            if (self.slope, self.offset) == (1.0, 0.0):
                return probability
            return torch.sigmoid(self.slope * torch.logit(probability, eps=1e-7) + self.offset)
        x, y = self.points.T
        part = ((probability[:, None] - x[:-1]) / x.diff().clamp(min=1e-12)).clamp(0, 1)
        return y[0] + (part * y.diff()).sum(-1)


def export_network(network: BundledNetwork, example: tuple[Tensor, Tensor, Tensor], path: Path) -> None:
    """Write the network in ONNX, for one window at a time, in single precision.

    Args:
        example: telemetry (1,T,C), detections (1,T,N,7) and mask (1,T,N) of a window.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in ("torch.onnx", "onnxscript"):
            logging.getLogger(name).setLevel(logging.ERROR)
        program = torch.onnx.export(
            network.eval(), example, dynamo=True, verbose=False, input_names=[*NETWORK_INPUTS], output_names=[OUTPUT]
        )
    assert program is not None
    program.save(str(path))
