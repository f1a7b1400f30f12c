"""The twelve networks, assembled from encoders, fusions and decoders by a configuration."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from model.common.errors import DataError
from model.dataset.window_data import WindowData
from model.network.architectures import ARCHITECTURES, PARTS
from model.network.config import ModelConfig
from model.network.decoders import DECODER_TYPES, TaskHeads
from model.network.derived import DerivedInputs
from model.network.encoders import ENCODER_TYPES, LONGEST_WINDOW
from model.network.fusions import FUSION_TYPES
from model.network.hazard import label_logits
from model.network.members import Members
from model.network.sets import ObjectSets

__all__ = ["ARCHITECTURES", "ModelConfig", "MultimodalModel", "architecture_of", "create_model_variant"]


class MultimodalModel(nn.Module):
    """Encoder, fusion, decoder and heads: a window of telemetry and detections to a logit for each task."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = ENCODER_TYPES[config.encoder_type](config)
        self.fusion = FUSION_TYPES[config.fusion_type](config)
        self.decoder = DECODER_TYPES[config.decoder_type](config)
        self.heads = TaskHeads(config)
        self.derived = DerivedInputs(config) if config.derives else None
        self.members = Members(config, self.derived.dim) if self.derived is not None else None

    def forward(
        self, telemetry_seq: Tensor, detection_seq: Tensor, detection_mask: Tensor, derived: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Logits of each task; in training those of the network's outputs, which are HAZARDS with head "hazard".

        With derived inputs, the logits of encoder, fusion and decoder are added to those of each member. In training
        each member has its own loss; otherwise the mean of their probabilities is returned.

        Args:
            telemetry_seq: (B,T,telemetry_input_dim) normalised telemetry, at most LONGEST_WINDOW frames.
            detection_seq: (B,T,N,detection_input_dim_per_box) normalised detections.
            detection_mask: (B,T,N) bool, True where a detection is real. Frames without detections are normal.
            derived: (B,D) the result of `self.derived` for the windows, if it is known already.

        Returns:
            {task: (B,)} in the order of `prediction_tasks`; in training {output: (B,)} in that of `config.outputs`,
            with derived inputs {output: (B,members)}.
        """
        if telemetry_seq.shape[1] > LONGEST_WINDOW:
            raise DataError(f"Window of {telemetry_seq.shape[1]} frames: expected at most {LONGEST_WINDOW}.")
        sets = ObjectSets.of(detection_mask)
        frames, objects = self.encoder(telemetry_seq, sets.pack(detection_seq), sets)
        logits: dict[str, Tensor] = self.heads(self.decoder(self.fusion(frames, objects, sets)))
        if self.derived is None or self.members is None:
            return logits if self.training else self._of_tasks(logits)
        if derived is None:
            derived = self.derived(telemetry_seq, detection_seq, detection_mask)
        members = self.members(derived).float()
        both = {task: members[..., index] + logits[task][:, None] for index, task in enumerate(logits)}
        if self.training:
            return both
        return {task: torch.logit(each.sigmoid().mean(-1), eps=1e-7) for task, each in self._of_tasks(both).items()}

    def _of_tasks(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.config.head == "labels":
            return outputs
        labels = label_logits(outputs)
        return {task: labels[task] for task in self.config.prediction_tasks}

    def prepare(self, train: WindowData, val: WindowData, batch_size: int) -> tuple[WindowData, WindowData]:
        """Calibrate the derived inputs on train, and add them to the windows of both splits."""
        if self.derived is None or self.members is None:
            return train, val
        self.derived.measure(train.detections, train.detection_mask)
        train, val = (data.deriving(self.derived, batch_size) for data in (train, val))
        if train.derived is not None:
            self.members.measure(train.derived)
        return train, val


def create_model_variant(config: Mapping[str, Any]) -> MultimodalModel:
    """The network that `config` describes. Its keys are fields of `ModelConfig`; missing ones have their defaults.

    Raises:
        DataError: an unknown key or a wrong value; the message says what is allowed.
    """
    return MultimodalModel(ModelConfig(**config))


def architecture_of(name: str) -> dict[str, str]:
    """The parts of the architecture with this name, as keys of `create_model_variant`. DataError if unknown."""
    if name not in PARTS:
        raise DataError(f"Unknown architecture {name!r}: expected one of {', '.join(PARTS)}.")
    return PARTS[name]
