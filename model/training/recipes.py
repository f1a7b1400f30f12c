"""The recipe of a training. Free of torch: the launchpad is made from it."""

from dataclasses import dataclass
from typing import Any

from model.common.config import option
from model.common.errors import DataError
from model.network.config import ModelConfig, check_tasks
from model.recording.labels import DEFAULT_TASKS
from model.recording.schema import GEAR_CODINGS

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
FOCAL_ALPHA = {"brake_1s": 0.2, "brake_2s": 0.2, "coast_1s": 0.3, "coast_2s": 0.3}
FOCAL_GAMMA = {"brake_1s": 3.0, "brake_2s": 2.75, "coast_1s": 2.0, "coast_2s": 1.75}
TASK_WEIGHTS = {"brake_1s": 1.0, "brake_2s": 0.95, "coast_1s": 0.85, "coast_2s": 0.8}
OTHER_ALPHA, OTHER_GAMMA, OTHER_WEIGHT = 0.25, 2.0, 1.0
"""For labels that the tables do not name."""


@dataclass(frozen=True)
class TrainingConfig:
    """The recipe. Defaults are the reference recipe."""

    tasks: tuple[str, ...] = option(DEFAULT_TASKS, "Labels to predict, any of the ten")
    epochs: int = option(100, "Most epochs")
    batch_size: int = option(256, "Windows a step")
    learning_rate: float = option(5e-5, "Learning rate of AdamW after warm-up")
    weight_decay_ratio: float = option(0.225, "Weight decay of AdamW as a multiple of the learning rate")
    warmup_epochs: int = option(8, "Epochs over which the rate rises linearly to the learning rate")
    warmup_start: float = option(0.05, "Rate of the first warm-up epoch as a share of the learning rate")
    plateau_factor: float = option(0.85, "Factor on the rate when mean val PR-AUC stops rising")
    plateau_patience: int = option(6, "Epochs without a better mean val PR-AUC, after warm-up, before the rate falls")
    rate_floor: float = option(0.01, "Lowest rate as a share of the learning rate")
    early_stop_patience: int = option(20, "Epochs without a better mean val PR-AUC, after warm-up, that end the run")
    gradient_norm: float = option(1.0, "Gradients are clipped to this norm")
    precision: str = option("auto", "auto | fp32 | bf16 | fp16; auto: bf16 where CUDA has it, else fp16, fp32 on CPU")
    device: str = option("auto", "auto (CUDA if there is one, else CPU) or a torch device such as cuda:1")
    seed: int = option(0, "Seed of weights, order and dropout")
    focal_alpha: dict[str, float] = option(FOCAL_ALPHA, "Focal loss: weight of positives by task; others 0.25")
    focal_gamma: dict[str, float] = option(FOCAL_GAMMA, "Focal loss: focus on hard windows by task; others 2.0")
    task_weights: dict[str, float] = option(TASK_WEIGHTS, "Weight of a task's loss; others 1.0")
    gear: str = option("onehot", "GEAR as onehot (6 features) or continuous (1 feature)")
    detection_classes: bool = option(False, "Give the networks the detections' classes, one-hot")
    embedding_dim: int = option(ModelConfig.embedding_dim, "Width of the encoders and of the fusion")
    hidden_dim: int = option(ModelConfig.hidden_dim, "Width of the decoder")
    attention_num_heads: int = option(ModelConfig.attention_num_heads, "Heads of every attention")
    decoder_num_layers: int = option(ModelConfig.decoder_num_layers, "Layers of the LSTM or of the transformer")
    dropout_prob: float = option(ModelConfig.dropout_prob, "Dropout in training")

    def __post_init__(self) -> None:
        check_tasks(self.tasks, "tasks")
        limits = (
            (("epochs", "batch_size", "plateau_patience", "early_stop_patience"), 1, None),
            (("warmup_epochs", "seed", "weight_decay_ratio"), 0, None),
            (("warmup_start", "plateau_factor", "rate_floor"), 0, 1),
        )
        for names, low, high in limits:
            for name in names:
                value = getattr(self, name)
                if not value >= low or (high is not None and value > high):
                    raise DataError(f"{name} {value}: expected {low} to {high if high is not None else 'any'}.")
        for name in ("learning_rate", "gradient_norm"):
            if not 0 < getattr(self, name) < float("inf"):
                raise DataError(f"{name} {getattr(self, name)}: expected a positive number.")
        for name, allowed in (("precision", PRECISIONS), ("gear", GEAR_CODINGS)):
            if getattr(self, name) not in allowed:
                raise DataError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(allowed)}.")
        ModelConfig(prediction_tasks=self.tasks, **self.sizes)

    @property
    def sizes(self) -> dict[str, Any]:
        """The keys of `ModelConfig` that size a network."""
        names = ("embedding_dim", "hidden_dim", "attention_num_heads", "decoder_num_layers", "dropout_prob")
        return {name: getattr(self, name) for name in names}
