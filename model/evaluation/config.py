"""Options of an evaluation. Imports no torch, since the launchpad uses it."""

from typing import Annotated, Literal

from pydantic import Field

from model.common.config import Config


class EvaluationConfig(Config):
    """How a checkpoint is scored."""

    bootstrap_samples: int = Field(1000, ge=2, description="Resamples behind each confidence interval")
    confidence_level: float = Field(0.95, gt=0, lt=1, description="Share of resamples in an interval")
    seed: int = Field(0, ge=0, description="Seed of the resamples")
    calibration: Literal["platt", "temperature", "isotonic", "none"] = Field(
        "platt", description="How probabilities are calibrated on val"
    )
    false_alarms_per_hour: list[Annotated[float, Field(gt=0)]] = Field(
        [1.0, 3.0, 10.0], min_length=1, description="Budgets of false alarms per hour; thresholds are chosen on val"
    )
    alarm_off_share: float = Field(0.7, gt=0, le=1, description="An alarm ends below this share of its threshold")
    alarm_min_s: float = Field(
        0.0, ge=0, description="An alarm starts when the probability has been high for this long, s"
    )
    importances: bool = Field(
        True, description="Measure what each channel and all detections contribute, by exchanging them between windows"
    )
    train_without_detections: bool = Field(
        False,
        description="Also train the same recipe without detections and report what they contribute; takes a training",
    )
    batch_size: int = Field(1024, ge=1, description="Windows per step")
    device: str = Field("auto", description="auto (CUDA if available, else CPU) or a torch device such as cuda:1")


class PredictionConfig(Config):
    """How a recording is predicted."""

    architecture: str = Field(
        "",
        description="The network, of those that are evaluated; empty: the one with the alias best, or, where none has "
        "it, the first of the comparison",
    )
    false_alarms_per_hour: float = Field(
        3.0, gt=0, description="Budget of false alarms per hour whose thresholds ring; one of the evaluation's"
    )


BOOSTING = "boosting"


class ReviewQueueConfig(Config):
    """Which moments of train and val people look at."""

    items: int = Field(200, ge=1, le=2000, description="Moments in the queue, the worst of each kind")
    predictor: str = Field(
        BOOSTING,
        description="boosting: gradient boosting on the last frame and the lead vehicle, seconds; or an architecture, "
        "which is trained once a fold with the recipe of its published checkpoint",
    )
    folds: int = Field(
        5, ge=2, le=50, description="Parts of train by recording, each predicted by a model that did not see it"
    )
    false_alarms_per_hour: float = Field(
        3.0, gt=0, description="Budget at which onsets are missed and alarms are false"
    )


class ReviewGainConfig(Config):
    """How the gain of a review is proven."""

    predictor: str = Field(
        BOOSTING, description="boosting, in seconds; or an architecture, with the recipe of its published checkpoint"
    )
    seeds: int = Field(3, ge=1, le=50, description="Trainings of each of the three arms")
    false_alarms_per_hour: float = Field(3.0, gt=0, description="At which the arms are compared on test")
