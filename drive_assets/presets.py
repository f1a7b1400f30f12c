"""Presets of options by asset: full, for results that count, and quick, to see that all works, in minutes on a CPU."""

from collections.abc import Mapping
from typing import Any

from model.annotation.config import AnnotationConfig
from model.common.config import Config
from model.dataset.assignment import SplitConfig
from model.dataset.windows import WindowConfig
from model.detection.boxy import BoxyConfig
from model.detection.detector_training import DetectorConfig, NuimagesDetectorConfig
from model.detection.nuimages import NuimagesConfig
from model.evaluation.config import EvaluationConfig
from model.recording.dialect import ReadingConfig
from model.recording.labels import LabelConfig
from model.training.recipes import RECIPES

Preset = Mapping[str, Mapping[str, Any]]


def _of(config: Config, *names: str) -> dict[str, Any]:
    """The options that people set most often. All others stand beside the launchpad, with their defaults."""
    return {name: config.model_dump(mode="json")[name] for name in names}


_TRAINED = ("epochs", "batch_size", "learning_rate", "seed")
_DETECTED = ("epochs", "image_size", "batch", "learning_rate", "seed")
FULL: Preset = {
    "recording": _of(ReadingConfig(), "most_unreadable", "pedal_range"),
    "boxy_dataset": _of(BoxyConfig(), "classes", "min_box_px"),
    "boxy_detector": _of(DetectorConfig(), *_DETECTED),
    "nuimages_dataset": _of(NuimagesConfig(), "cameras", "min_box_px"),
    "nuimages_detector": _of(NuimagesDetectorConfig(), *_DETECTED),
    "annotations": {"weights": "", **_of(AnnotationConfig(), "image_size", "confidence", "agnostic_nms")},
    "future_labels": _of(LabelConfig(), "coast_threshold", "tolerance_s"),
    "split_manifest": {
        "window": {**_of(WindowConfig(), "length", "max_detections"), "stride": 1},
        "split": _of(SplitConfig(), "train", "val", "test", "reshuffle", "accept_implausible"),
    },
    "checkpoint": {"recipe": "best", **_of(RECIPES["best"], *_TRAINED), "train_anew": False},
    "evaluation": _of(EvaluationConfig(), "bootstrap_samples", "confidence_level", "calibration"),
}
_UNVARIED: Mapping[str, Any] = {
    "batch": 8,
    "workers": 0,
    "warmup_epochs": 0.0,
    "multi_scale": 0.0,
    "degrees": 0.0,
    "perspective": 0.0,
    "mosaic": 0.0,
    "mixup": 0.0,
    "cutmix": 0.0,
    "copy_paste": 0.0,
    "close_mosaic": 0,
}
QUICK: Preset = {
    # At image size 704 a box of 24 px of the full-size image is 7 px: a car about 140 m ahead.
    "boxy_dataset": {"min_box_px": 24.0},
    # The bundled weights have seen many such frames: a few small steps are enough, large ones spoil them.
    "boxy_detector": {**_UNVARIED, "epochs": 1, "image_size": 704, "learning_rate": 0.00005},
    "nuimages_detector": {**_UNVARIED, "epochs": 1, "image_size": 320},
    "split_manifest": {"window": {"stride": 1}},
    "checkpoint": {"recipe": "best", "epochs": 12, "batch_size": 128},
    "evaluation": {"bootstrap_samples": 500},
}
"""As the demo does it."""
