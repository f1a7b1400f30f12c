"""Training recipes. Imports no torch: the launchpad derives from them."""

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from model.network.config import HAZARDS, NetworkConfig, Tasks
from model.recording.schema import BINARY_LABELS, DEFAULT_TASKS, TASKS

FOCAL_ALPHA = {"brake_1s": 0.2, "brake_2s": 0.2, "coast_1s": 0.3, "coast_2s": 0.3}
FOCAL_GAMMA = {"brake_1s": 3.0, "brake_2s": 2.75, "coast_1s": 2.0, "coast_2s": 1.75}
TASK_WEIGHTS = {"brake_1s": 1.0, "brake_2s": 0.95, "coast_1s": 0.85, "coast_2s": 0.8}
OTHER_ALPHA, OTHER_GAMMA, OTHER_WEIGHT = 0.25, 2.0, 1.0
"""For labels without an entry in the tables."""


class TrainingConfig(NetworkConfig):
    """The recipe. Defaults are the reference recipe."""

    tasks: Tasks = Field(list(DEFAULT_TASKS), description="Labels to predict, any of the ten")
    epochs: int = Field(100, ge=1, description="Most epochs")
    batch_size: int = Field(256, ge=1, description="Windows a step")
    learning_rate: float = Field(5e-5, gt=0, allow_inf_nan=False, description="Learning rate of AdamW after warm-up")
    weight_decay_ratio: float = Field(0.225, ge=0, description="Weight decay of AdamW as a multiple of learning_rate")
    warmup_epochs: int = Field(8, ge=0, description="Epochs over which the rate rises linearly to learning_rate")
    warmup_start: float = Field(0.05, ge=0, le=1, description="Rate of the first warm-up epoch / learning_rate")
    plateau_factor: float = Field(0.85, ge=0, le=1, description="Factor on the rate when mean val PR-AUC stops rising")
    plateau_patience: int = Field(
        6, ge=1, description="Epochs without a better mean val PR-AUC, after warm-up, before the rate falls"
    )
    rate_floor: float = Field(0.01, ge=0, le=1, description="Lowest rate / learning_rate")
    early_stop_patience: int = Field(
        20, ge=1, description="Epochs without a better mean val PR-AUC, after warm-up, that end the training"
    )
    gradient_norm: float = Field(1.0, gt=0, allow_inf_nan=False, description="Gradients are clipped to this norm")
    most_bad_steps: int = Field(
        10,
        ge=0,
        description="Steps with a loss or gradient that is not finite are left out; more end the training",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="auto: bf16 on CUDA from Ampere on, else fp32"
    )
    device: str = Field("auto", description="auto (CUDA if there is one, else CPU) or a torch device such as cuda:1")
    compiled: bool = Field(
        False,
        description="Compile the network on CUDA (torch.compile): takes minutes at first, pays off in long trainings",
    )
    seed: int = Field(0, ge=0, description="Seed of weights, order and dropout")
    schedule: Literal["plateau", "cosine"] = Field(
        "plateau", description="After warm-up the rate falls when mean val PR-AUC stops rising, or along a cosine"
    )
    ema_decay: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Decay of the average of the weights over steps, which is scored and published; 0: off",
    )
    auxiliary_weight: float = Field(
        0.0, ge=0, description="Weight of the loss of labels that are not in tasks; 0: they are not learnt"
    )
    onset_weight: float = Field(
        1.0, gt=0, description="Weight of windows in which the driver does not brake (coast) yet; others 1.0"
    )
    sampling: Literal["all", "balanced"] = Field(
        "all",
        description="Every window once an epoch, or as many drawn, half of them with a positive label: then calibrate",
    )
    loss: Literal["focal", "bce"] = Field("focal", description="Focal loss, or cross-entropy, which is calibrated")
    focal_alpha: dict[str, float] = Field(
        FOCAL_ALPHA, description="Focal loss: weight of positives by task; others 0.25"
    )
    focal_gamma: dict[str, float] = Field(
        FOCAL_GAMMA, description="Focal loss: focus on hard windows by task; others 2.0"
    )
    task_weights: dict[str, float] = Field(TASK_WEIGHTS, description="Weight of a task's loss; others 1.0")
    gear: Literal["onehot", "continuous"] = Field(
        "onehot", description="GEAR as onehot (6 features) or continuous (1 feature)"
    )
    detection_classes: bool = Field(False, description="Add the class of each detection, one-hot, to the inputs")

    @model_validator(mode="after")
    def _hazards_need_cross_entropy(self) -> Self:
        if self.head == "hazard" and self.loss != "bce":
            raise ValueError(f"loss {self.loss}: expected bce with head hazard, whose probabilities are multiplied")
        if self.head == "hazard" and not set(self.tasks) <= set(BINARY_LABELS):
            raise ValueError(f"tasks {', '.join(self.tasks)}: expected only brake and coast labels with head hazard")
        return self

    @property
    def network(self) -> dict[str, Any]:
        """The fields of `ModelConfig` that the recipe sets."""
        return {name: getattr(self, name) for name in NetworkConfig.model_fields}

    @property
    def trained_tasks(self) -> list[str]:
        """The labels that the network predicts: `tasks`, then the auxiliary ones."""
        others = [label for label in BINARY_LABELS if label not in self.tasks]
        return [*self.tasks, *(others if self.auxiliary_weight > 0 else [])]

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each label, and of each hazard: the largest weight of a label that depends on it."""
        requested = {task: self.task_weights.get(task, OTHER_WEIGHT) for task in self.tasks}
        labels = {label: requested.get(label, self.auxiliary_weight) for label in TASKS}
        return labels | {
            name: max(weight for label, weight in labels.items() if _depends(label, name)) for name in HAZARDS
        }


def _depends(label: str, hazard: str) -> bool:
    """Whether a label depends on a hazard: those of its action up to its horizon."""
    action, _, horizon = label.partition("_")
    hazard_action, _, when = hazard.partition("_")
    return action == hazard_action and (when == "now" or int(when.split("_")[1][:-1]) <= int(horizon[:-1]))


RECIPES: Mapping[str, TrainingConfig] = {
    "reference": TrainingConfig(),
    "best": TrainingConfig(
        epochs=12,
        batch_size=512,
        learning_rate=5e-3,
        weight_decay_ratio=4.0,
        warmup_epochs=1,
        schedule="cosine",
        ema_decay=0.99,
        early_stop_patience=6,
        loss="bce",
        auxiliary_weight=0.1,
        onset_weight=2.0,
        embedding_dim=32,
        hidden_dim=64,
        attention_num_heads=4,
        decoder_num_layers=1,
        telemetry_changes=True,
        lead_tracks=True,
    ),
}
"""Recipes by name: "reference" is the published one, "best" the result of docs/experiments.md."""


def described(config: TrainingConfig) -> str:
    """Name of the most similar recipe, and the options that differ from it, except for the device."""

    def changes(name: str) -> dict[str, Any]:
        ours, named = config.model_dump(exclude={"device"}), RECIPES[name].model_dump()
        return {option: value for option, value in ours.items() if value != named[option]}

    name = min(RECIPES, key=lambda name: len(changes(name)))
    return ", ".join([name, *(f"{option} {value}" for option, value in changes(name).items())])
