"""The recipe of a network, of its training and of its evaluation, and the schedule that follows from it.

Free of torch: the launchpad is made from it.
"""

import dataclasses
from dataclasses import dataclass
from typing import Any

from model.architectures import DECODERS, ENCODERS, FUSIONS
from model.config import option
from model.errors import DataError
from model.inputs import BOX_FEATURES, GEAR_CODINGS, TELEMETRY_DIM
from model.labels import BINARY_LABELS, DEFAULT_TASKS

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
FOCAL_ALPHA = {"brake_1s": 0.2, "brake_2s": 0.2, "coast_1s": 0.3, "coast_2s": 0.3}
FOCAL_GAMMA = {"brake_1s": 3.0, "brake_2s": 2.75, "coast_1s": 2.0, "coast_2s": 1.75}
TASK_WEIGHTS = {"brake_1s": 1.0, "brake_2s": 0.95, "coast_1s": 0.85, "coast_2s": 0.8}
OTHER_ALPHA, OTHER_GAMMA, OTHER_WEIGHT = 0.25, 2.0, 1.0
"""For labels that the tables do not name."""


@dataclass(frozen=True)
class ModelConfig:
    """What a network is made of."""

    encoder_type: str = option("simple", "simple | attention")
    fusion_type: str = option("concat", "concat | cross_attention | query")
    decoder_type: str = option("lstm", "lstm | transformer")
    telemetry_input_dim: int = option(TELEMETRY_DIM["onehot"], "Telemetry features a frame")
    detection_input_dim_per_box: int = option(len(BOX_FEATURES), "Features a detection")
    embedding_dim: int = option(64, "Width of the encoders and of the fusion; an even multiple of the heads")
    hidden_dim: int = option(128, "Width of the decoder; a multiple of the heads")
    attention_num_heads: int = option(8, "Heads of every attention")
    decoder_num_layers: int = option(4, "Layers of the LSTM or of the transformer")
    dropout_prob: float = option(0.15, "Dropout in training, 0 to below 1")
    prediction_tasks: tuple[str, ...] = option(DEFAULT_TASKS, "Labels to predict, a logit each")

    def __post_init__(self) -> None:
        for name, allowed in (("encoder_type", ENCODERS), ("fusion_type", FUSIONS), ("decoder_type", DECODERS)):
            if getattr(self, name) not in allowed:
                raise DataError(f"{name} {getattr(self, name)!r}: expected one of {', '.join(allowed)}.")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type is int and (type(value) is not int or value < 1):
                raise DataError(f"{field.name} {value!r}: expected a whole number of at least 1.")
        check_tasks(self.prediction_tasks, "prediction_tasks")
        if type(self.dropout_prob) not in (int, float) or not 0 <= self.dropout_prob < 1:
            raise DataError(f"dropout_prob {self.dropout_prob!r}: expected a number from 0 to below 1.")
        heads = self.attention_num_heads
        if self.embedding_dim % heads or self.embedding_dim % 2:
            raise DataError(f"embedding_dim {self.embedding_dim}: expected an even multiple of {heads} heads.")
        if self.hidden_dim % heads or self.hidden_dim < 2:
            raise DataError(f"hidden_dim {self.hidden_dim}: expected a multiple of {heads} heads, at least 2.")


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


@dataclass(frozen=True)
class EvaluationConfig:
    """How a checkpoint is scored."""

    bootstrap_samples: int = option(1000, "Resamples behind each confidence interval")
    confidence_level: float = option(0.95, "Share of resamples that an interval holds")
    seed: int = option(0, "Seed of the resamples")
    batch_size: int = option(1024, "Windows a step")
    device: str = option("auto", "auto (CUDA if there is one, else CPU) or a torch device such as cuda:1")

    def __post_init__(self) -> None:
        if self.bootstrap_samples < 2 or not 0 < self.confidence_level < 1 or self.batch_size < 1:
            raise DataError(f"{self}: expected at least 2 samples, a level within (0, 1) and a positive batch_size.")


class Schedule:
    """Rate, best epoch and end of a run as a function of the scores seen so far (higher is better)."""

    def __init__(self, config: TrainingConfig) -> None:
        self.config = config
        self.epoch = 0
        self.best_epoch = -1
        self.best_score = float("-inf")
        self._factor = 1.0
        self._waited_for_rate = 0
        self._waited_for_end = 0

    @property
    def rate(self) -> float:
        """The learning rate of the coming epoch."""
        config = self.config
        if self.epoch < config.warmup_epochs:
            share = config.warmup_start + (1 - config.warmup_start) * self.epoch / config.warmup_epochs
            return config.learning_rate * share
        return config.learning_rate * self._factor

    @property
    def ended(self) -> bool:
        return self.epoch >= self.config.epochs or self._waited_for_end >= self.config.early_stop_patience

    def step(self, score: float) -> None:
        """Take the score of the epoch that ended."""
        config = self.config
        if score > self.best_score:
            self.best_epoch, self.best_score = self.epoch, score
            self._waited_for_rate = self._waited_for_end = 0
        elif self.epoch >= config.warmup_epochs:
            self._waited_for_rate += 1
            self._waited_for_end += 1
        if self._waited_for_rate > config.plateau_patience:
            self._factor = max(self._factor * config.plateau_factor, config.rate_floor)
            self._waited_for_rate = 0
        self.epoch += 1


def check_tasks(tasks: tuple[str, ...], name: str) -> None:
    """Raise DataError unless `tasks` are distinct labels, at least one."""
    unknown = [task for task in tasks if task not in BINARY_LABELS]
    if isinstance(tasks, str) or unknown or not tasks or len(set(tasks)) != len(tasks):
        raise DataError(f"{name} {tasks!r}: expected distinct labels of {', '.join(BINARY_LABELS)}.")
