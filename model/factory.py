"""The twelve networks: a table of encoders, fusions and decoders, put together by a configuration."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from model.architectures import ARCHITECTURES, DECODERS, ENCODERS, FUSIONS, parse
from model.config import from_dict, option
from model.decoder import DECODER_TYPES, TaskHeads
from model.encoder import ENCODER_TYPES, LONGEST_WINDOW
from model.errors import DataError
from model.features import BOX_FEATURES, TELEMETRY_DIM
from model.fusion import FUSION_TYPES
from model.labels import BINARY_LABELS, DEFAULT_TASKS

__all__ = ["ARCHITECTURES", "ModelConfig", "MultimodalModel", "architecture_of", "create_model_variant"]


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


def check_tasks(tasks: tuple[str, ...], name: str) -> None:
    """Raise DataError unless `tasks` are distinct labels, at least one."""
    unknown = [task for task in tasks if task not in BINARY_LABELS]
    if isinstance(tasks, str) or unknown or not tasks or len(set(tasks)) != len(tasks):
        raise DataError(f"{name} {tasks!r}: expected distinct labels of {', '.join(BINARY_LABELS)}.")


class MultimodalModel(nn.Module):
    """Encoder, fusion, decoder and heads: a window of telemetry and detections to one logit each task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        dim, heads, dropout = config.embedding_dim, config.attention_num_heads, config.dropout_prob
        inputs = config.telemetry_input_dim, config.detection_input_dim_per_box
        self.encoder = ENCODER_TYPES[config.encoder_type](*inputs, dim, heads, dropout)
        self.fusion = FUSION_TYPES[config.fusion_type](dim, heads, dropout)
        decoder = DECODER_TYPES[config.decoder_type]
        self.decoder = decoder(dim, config.hidden_dim, heads, config.decoder_num_layers, dropout)
        self.heads = TaskHeads(config.hidden_dim, config.prediction_tasks, dropout)

    def forward(self, telemetry_seq: Tensor, detection_seq: Tensor, detection_mask: Tensor) -> dict[str, Tensor]:
        """Logits of each task.

        Args:
            telemetry_seq: (B,T,telemetry_input_dim) normalised telemetry, at most LONGEST_WINDOW frames.
            detection_seq: (B,T,N,detection_input_dim_per_box) normalised detections.
            detection_mask: (B,T,N) bool, True where a detection is real. A frame with none is normal input.

        Returns:
            {task: (B,)} in the order of `prediction_tasks`.
        """
        if telemetry_seq.shape[1] > LONGEST_WINDOW:
            raise DataError(f"Window of {telemetry_seq.shape[1]} frames: expected at most {LONGEST_WINDOW}.")
        frames, objects = self.encoder(telemetry_seq, detection_seq, detection_mask)
        return self.heads(self.decoder(self.fusion(frames, objects, detection_mask)))


def create_model_variant(config: Mapping[str, Any]) -> MultimodalModel:
    """The network that `config` describes; its keys are the fields of `ModelConfig`, whose defaults fill what is left.

    Raises:
        DataError: a key or a value is not one that is allowed; the message says which are.
    """
    allowed = [field.name for field in dataclasses.fields(ModelConfig)]
    unknown = sorted(set(config) - set(allowed))
    if unknown:
        raise DataError(f"Unknown model configuration {', '.join(unknown)}: expected keys of {', '.join(allowed)}.")
    return MultimodalModel(from_dict(ModelConfig, config))


def architecture_of(name: str) -> dict[str, str]:
    """The parts that an architecture's name stands for, as keys of `create_model_variant`. DataError if unknown."""
    return parse(name)._asdict()
