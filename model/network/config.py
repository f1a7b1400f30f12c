"""Configuration of a network. Imports no torch: the launchpad derives from it."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from model.common.config import Config
from model.network.architectures import Decoder, Encoder, Fusion
from model.recording.labels import LabelConfig
from model.recording.schema import (
    ACTIONS,
    BOX_FEATURES,
    DEFAULT_TASKS,
    FEATURES,
    GEAR_CODINGS,
    HORIZONS_S,
    TASKS,
    TELEMETRY_DIM,
    check_inputs,
    telemetry_dim,
)

HAZARDS = tuple(
    f"{action}_{name}"
    for action in ACTIONS
    for name in ("now", *(f"{change}_{h}s" for change in ("onset", "release") for h in HORIZONS_S))
)
"""Of each action: whether it is under way now; whether it begins in second h if it was not under way in the second
before; whether it ends if it was. "Now" is learnt too: no input channel says for certain that the driver brakes."""


def _distinct_labels(tasks: list[str]) -> list[str]:
    if not tasks or len(set(tasks)) != len(tasks) or not set(tasks) <= set(TASKS):
        raise ValueError(f"distinct labels of {', '.join(TASKS)}")
    return tasks


Tasks = Annotated[list[str], AfterValidator(_distinct_labels)]
"""Labels to predict, at least one."""


class NetworkConfig(Config):
    """The part of a recipe that concerns the network: its sizes, and the inputs that it derives from its window."""

    embedding_dim: int = Field(64, ge=1, description="Width of the encoders and of the fusion; even, for all heads")
    hidden_dim: int = Field(128, ge=1, description="Width of the decoder; a multiple of the heads")
    attention_num_heads: int = Field(8, ge=1, description="Heads of every attention")
    decoder_num_layers: int = Field(4, ge=1, description="Layers of the LSTM or of the transformer")
    dropout_prob: float = Field(0.15, ge=0, lt=1, description="Dropout in training")

    telemetry_changes: bool = Field(False, description="Derive the changes of speed, engine speed, pedal and load")
    lead_tracks: bool = Field(
        False, description="Derive the nearest vehicle in the own lane, followed over the window, and its motion"
    )
    members: int = Field(
        8, ge=1, description="Networks that read the derived inputs and share most weights; their answers are averaged"
    )
    members_dim: int = Field(128, ge=1, description="Width of these networks")
    head: Literal["labels", "hazard"] = Field(
        "labels",
        description="Learn the labels, or the probabilities that an action begins or ends in each second",
    )

    @model_validator(mode="after")
    def _heads_share_the_widths(self) -> Self:
        heads = self.attention_num_heads
        if self.embedding_dim % heads or self.embedding_dim % 2:
            raise ValueError(f"embedding_dim {self.embedding_dim}: expected an even multiple of {heads} heads")
        if self.hidden_dim % heads or self.hidden_dim < 2:
            raise ValueError(f"hidden_dim {self.hidden_dim}: expected a multiple of {heads} heads, at least 2")
        return self

    @property
    def derives(self) -> bool:
        return self.telemetry_changes or self.lead_tracks


class ModelConfig(NetworkConfig):
    """All that defines a network."""

    encoder_type: Encoder = Field("simple", description="Encoder of telemetry and detections")
    fusion_type: Fusion = Field("concat", description="Fusion of both to one sequence")
    decoder_type: Decoder = Field("lstm", description="Decoder of the sequence to a summary")
    telemetry_inputs: list[str] = Field(
        list(FEATURES), description="Telemetry channels, in the order of their features"
    )
    telemetry_input_dim: int = Field(TELEMETRY_DIM["onehot"], ge=1, description="Telemetry features a frame")
    detection_input_dim_per_box: int = Field(len(BOX_FEATURES), ge=1, description="Features a detection")
    vehicle_flag: bool = Field(
        False, description="The detections include other classes: after the box, a feature marks vehicles"
    )
    coast_threshold: float = Field(
        LabelConfig().coast_threshold, gt=0, le=100, description="Accelerator position (%) below which the car coasts"
    )
    prediction_tasks: Tasks = Field(list(DEFAULT_TASKS), description="Labels to predict, a logit each")

    @property
    def outputs(self) -> list[str]:
        """What the network learns, a logit each."""
        return list(HAZARDS) if self.head == "hazard" else self.prediction_tasks

    @model_validator(mode="after")
    def _features_match_the_channels(self) -> Self:
        check_inputs(self.telemetry_inputs, "telemetry_inputs")
        allowed = sorted({telemetry_dim(self.telemetry_inputs, gear) for gear in GEAR_CODINGS})
        if self.derives and self.telemetry_input_dim not in allowed:
            raise ValueError(
                f"telemetry_input_dim {self.telemetry_input_dim}: expected {' or '.join(map(str, allowed))} for "
                f"{', '.join(self.telemetry_inputs)}"
            )
        return self
