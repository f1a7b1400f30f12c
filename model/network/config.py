"""What a network is made of. Free of torch: the launchpad is made from it."""

import dataclasses
from dataclasses import dataclass

from model.common.config import option
from model.common.errors import DataError
from model.network.architectures import DECODERS, ENCODERS, FUSIONS
from model.recording.labels import BINARY_LABELS, DEFAULT_TASKS
from model.recording.schema import BOX_FEATURES, TELEMETRY_DIM


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
