"""Encoders: telemetry and detections of a window to embeddings of its frames and of its detections."""

import math

import torch
from torch import Tensor, nn

from model.network.attention import Attention, Dropout, mlp
from model.network.config import ModelConfig
from model.network.sets import ObjectSets

LONGEST_WINDOW = 512


def sinusoidal_positions(length: int, dim: int) -> Tensor:
    """(length, dim) positions as sines and cosines of falling frequency (Vaswani et al. 2017, section 3.5)."""
    frequencies = torch.exp(torch.arange(0, dim, 2) * (-math.log(10_000.0) / dim))
    angles = torch.arange(length)[:, None] * frequencies
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


class SimpleEncoder(nn.Module):
    """An MLP for each modality, positions on telemetry, layer norm."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.telemetry = mlp(config.telemetry_input_dim, dim, dim, config.dropout_prob)
        self.telemetry_norm = nn.LayerNorm(dim)
        self.detection = mlp(config.detection_input_dim_per_box, dim, dim, dropout=0.0)
        self.detection_norm = nn.LayerNorm(dim)
        self.register_buffer("positions", sinusoidal_positions(LONGEST_WINDOW, dim), persistent=False)
        self.positions: Tensor

    def forward(self, telemetry: Tensor, detections: Tensor, sets: ObjectSets) -> tuple[Tensor, Tensor]:
        """telemetry (B,T,F), detections (N,D) in the frames' `sets` -> (B,T,E), (N,E)."""
        frames = self.telemetry_norm(self.telemetry(telemetry) + self.positions[: telemetry.shape[1]])
        return frames, self.detection_norm(self.detection(detections))


class AttentionEncoder(SimpleEncoder):
    """The simple encoder, then self-attention over time on telemetry and over the objects of each frame.

    Objects have no positions, so their order does not matter.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        dim = config.embedding_dim
        self.time_attention = Attention(dim, config.attention_num_heads)
        self.time_dropout = Dropout(config.dropout_prob)
        self.time_norm = nn.LayerNorm(dim)
        self.object_attention = Attention(dim, config.attention_num_heads)
        self.object_norm = nn.LayerNorm(dim)

    def forward(self, telemetry: Tensor, detections: Tensor, sets: ObjectSets) -> tuple[Tensor, Tensor]:
        frames, objects = super().forward(telemetry, detections, sets)
        frames = self.time_norm(frames + self.time_dropout(self.time_attention(frames, frames)))
        return frames, self.object_norm(objects + self.object_attention.within_sets(objects, sets))


ENCODER_TYPES = {"simple": SimpleEncoder, "attention": AttentionEncoder}
