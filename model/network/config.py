"""What a network is made of. Free of torch: the launchpad is made from it."""

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator

from model.common.config import Config
from model.network.architectures import Decoder, Encoder, Fusion
from model.recording.schema import (
    ACTIONS,
    BINARY_LABELS,
    BOX_FEATURES,
    DEFAULT_TASKS,
    FEATURES,
    GEAR_CODINGS,
    HORIZONS_S,
    TELEMETRY_DIM,
    check_inputs,
    telemetry_dim,
)

HAZARDS = tuple(
    f"{action}_{name}"
    for action in ACTIONS
    for name in ("now", *(f"{change}_{h}s" for change in ("onset", "release") for h in HORIZONS_S))
)
"""Of each action: whether it goes on now; that it does at h if it does not the second before; that it does not if it
does then. "Now" is learnt as well: no channel that networks see tells for sure that the driver brakes."""


class Sizes(Config):
    """How large a network is: shared by the network and by the recipe that trains it."""

    embedding_dim: int = Field(64, ge=1, description="Width of the encoders and of the fusion; even, for all heads")
    hidden_dim: int = Field(128, ge=1, description="Width of the decoder; a multiple of the heads")
    attention_num_heads: int = Field(8, ge=1, description="Heads of every attention")
    decoder_num_layers: int = Field(4, ge=1, description="Layers of the LSTM or of the transformer")
    dropout_prob: float = Field(0.15, ge=0, lt=1, description="Dropout in training")

    @model_validator(mode="after")
    def _heads_share_the_widths(self) -> Self:
        heads = self.attention_num_heads
        if self.embedding_dim % heads or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim {self.embedding_dim}: expected an even multiple of {heads} heads")
        if self.hidden_dim % heads or self.hidden_dim < 2:
            raise ValueError(f"hidden_dim {self.hidden_dim}: expected a multiple of {heads} heads, at least 2")
        return self


class NetworkConfig(Sizes):
    """What the recipe says of a network: its sizes, and the inputs that it derives from its window by itself."""

    telemetry_changes: bool = Field(False, description="Derive how speed, engine speed, pedal and load change")
    lead_tracks: bool = Field(
        False, description="Derive the nearest vehicle in the own lane, followed over the window, and its motion"
    )
    members: int = Field(8, ge=1, description="Networks that read the derived inputs, sharing most weights; averaged")
    members_dim: int = Field(128, ge=1, description="Width of these networks")
    head: Literal["labels", "hazard"] = Field(
        "labels",
        description="Learn the labels, or how likely an action begins and ends in each second, from which they follow",
    )

    @property
    def derives(self) -> bool:
        return self.telemetry_changes or self.lead_tracks


class ModelConfig(NetworkConfig):
    """What a network is made of."""

    encoder_type: Encoder = Field("simple", description="Encoder of telemetry and detections")
    fusion_type: Fusion = Field("concat", description="How both become one sequence")
    decoder_type: Decoder = Field("lstm", description="How the sequence becomes a summary")
    telemetry_inputs: list[str] = Field(
        list(FEATURES), description="Telemetry channels, in the order of their features"
    )
    telemetry_input_dim: int = Field(TELEMETRY_DIM["onehot"], ge=1, description="Telemetry features a frame")
    detection_input_dim_per_box: int = Field(len(BOX_FEATURES), ge=1, description="Features a detection")
    vehicle_flag: bool = Field(
        False, description="The detections include other classes: after the box, a feature marks vehicles"
    )
    prediction_tasks: list[str] = Field(list(DEFAULT_TASKS), description="Labels to predict, a logit each")

    @property
    def outputs(self) -> list[str]:
        """What the network is taught, a logit each."""
        return list(HAZARDS) if self.head == "hazard" else self.prediction_tasks

    @model_validator(mode="after")
    def _tasks_are_labels(self) -> Self:
        check_tasks(self.prediction_tasks, "prediction_tasks")
        return self

    @model_validator(mode="after")
    def _features_are_of_the_channels(self) -> Self:
        check_inputs(self.telemetry_inputs, "telemetry_inputs")
        allowed = sorted({telemetry_dim(self.telemetry_inputs, gear) for gear in GEAR_CODINGS})
        if self.derives and self.telemetry_input_dim not in allowed:
            raise ValueError(
                f"telemetry_input_dim {self.telemetry_input_dim}: expected {' or '.join(map(str, allowed))} for "
                f"{', '.join(self.telemetry_inputs)}"
            )
        return self


def check_tasks(tasks: Sequence[str], name: str) -> None:
    """Raise ValueError unless `tasks` are distinct labels, at least one."""
    unknown = [task for task in tasks if task not in BINARY_LABELS]
    if unknown or not tasks or len(set(tasks)) != len(tasks):
        raise ValueError(f"{name} {list(tasks)}: expected distinct labels of {', '.join(BINARY_LABELS)}")
