"""Recipes of detectors, and what a training returns. Imports no torch: launchpads are built from the recipes."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from model.common.config import Config

STRIDE = 32


class DetectorConfig(Config):
    """Recipe of a detector, by default for highway vehicles on Boxy."""

    architecture: str = Field("yolo12n.yaml", description="Network, built from ultralytics' own description")
    weights: str = Field("bundled", description="Start from: bundled (trained on simulated frames), scratch, or a file")
    epochs: int = Field(110, ge=1, description="Maximum number of epochs")
    image_size: int = Field(704, ge=STRIDE, multiple_of=STRIDE, description="Longer side of the images, px")
    batch: int = Field(
        0,
        ge=0,
        description="Images per step over all devices; 0: as many as take 60 % of a single GPU's memory, 16 on each of "
        "several GPUs, 8 on a CPU",
    )
    devices: str = Field(
        "auto",
        pattern=r"^(auto|cpu|\d+(,\d+)*)$",
        description="auto (all GPUs, else CPU), cpu, or GPU numbers such as 0,1",
    )
    learning_rate: float = Field(0.0075, gt=0, description="Initial learning rate (lr0)")
    final_rate: float = Field(
        0.011, gt=0, le=1, description="Final learning rate as a share of the initial one (lrf), cosine"
    )
    optimizer: str = Field("AdamW", description="ultralytics' name of the optimiser")
    warmup_epochs: float = Field(5.0, ge=0, description="Epochs of warm-up")
    patience: int = Field(15, ge=0, description="Epochs without a better fitness after which the training ends")
    multi_scale: float = Field(0.5, ge=0, lt=1, description="Vary the image size by this share; 0 for none")
    degrees: float = Field(6.0, ge=0, le=180, description="Rotation, degrees")
    perspective: float = Field(0.00025, ge=0, le=0.01, description="Perspective")
    mixup: float = Field(0.075, ge=0, le=1, description="Probability of mixup")
    cutmix: float = Field(0.075, ge=0, le=1, description="Probability of cutmix")
    copy_paste: float = Field(0.1, ge=0, le=1, description="Probability of copy-paste")
    mosaic: float = Field(1.0, ge=0, le=1, description="Probability of mosaic")
    close_mosaic: int = Field(10, ge=0, description="Number of last epochs without mosaic")
    dropout: float = Field(0.175, ge=0, lt=1, description="Dropout")
    class_gain: float = Field(0.55, ge=0, description="Gain of the class loss (cls)")
    workers: int = Field(8, ge=0, description="Loader processes per device; 0 loads in the training process")
    seed: int = Field(0, ge=0, description="Seed")


class NuimagesDetectorConfig(DetectorConfig):
    """Recipe of the nuImages detector, of another network."""

    architecture: str = Field("yolo11n.yaml", description="Network, built from ultralytics' own description")
    weights: str = Field("scratch", description="Start from: bundled (trained on simulated frames), scratch, or a file")
    epochs: int = Field(60, ge=1, description="Maximum number of epochs")
    image_size: int = Field(640, ge=STRIDE, multiple_of=STRIDE, description="Longer side of the images, px")


@dataclass(frozen=True)
class DetectorResult:
    """A finished training."""

    weights: Path
    metrics: dict[str, float]
    """map50, map50_95, precision and recall on val, of the best weights."""
    epochs: int
    batch: int
    resumed: bool
    """Whether an earlier run trained some of the epochs, or all."""
    files: list[Path] = field(default_factory=list)
    """Ultralytics' tables and figures in the working folder."""
