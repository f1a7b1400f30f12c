"""Fusions: the embeddings of both modalities to one sequence, (B,T,E) and (B,T,N,E) and mask (B,T,N) to (B,T,E)."""

import torch
from torch import Tensor, nn

from model.network.attention import Attention, masked_mean, mlp
from model.network.config import ModelConfig

QUERIES = 8


class ConcatFusion(nn.Module):
    """The masked mean of a frame's detections next to its telemetry, through an MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.mlp = mlp(2 * dim, 2 * dim, dim, config.dropout_prob)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, objects: Tensor, mask: Tensor) -> Tensor:
        return self.norm(self.mlp(torch.cat((frames, masked_mean(objects, mask)), dim=-1)))


class CrossAttentionFusion(nn.Module):
    """Each frame's telemetry queries the frame's detections, then a residual MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.attention = Attention(dim, config.attention_num_heads)
        self.attention_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, 2 * dim, dim, config.dropout_prob)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, objects: Tensor, mask: Tensor) -> Tensor:
        seen = self.attention(frames.flatten(0, 1)[:, None], objects.flatten(0, 1), mask.flatten(0, 1))
        fused = self.attention_norm(frames + seen.view_as(frames))
        return self.norm(fused + self.mlp(fused))


class QueryFusion(nn.Module):
    """Eight learnt queries attend to the window's telemetry, then to each frame's detections.

    A learnt context vector weighs the eight answers of a frame into one, which is joined with the frame's telemetry and
    the mean of its detections.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.queries = nn.Parameter(torch.randn(QUERIES, dim) * dim**-0.5)
        self.context = nn.Parameter(torch.randn(dim) * dim**-0.5)
        self.telemetry_attention = Attention(dim, config.attention_num_heads)
        self.telemetry_norm = nn.LayerNorm(dim)
        self.object_attention = Attention(dim, config.attention_num_heads)
        self.object_norm = nn.LayerNorm(dim)
        self.mlp = mlp(3 * dim, 2 * dim, dim, config.dropout_prob)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, objects: Tensor, mask: Tensor) -> Tensor:
        batch, time, _ = frames.shape
        queries = self.queries.expand(batch, -1, -1)
        queries = self.telemetry_norm(queries + self.telemetry_attention(queries, frames))
        queries = queries[:, None].expand(-1, time, -1, -1).flatten(0, 1)
        answers = self.object_attention(queries, objects.flatten(0, 1), mask.flatten(0, 1))
        answers = self.object_norm(queries + answers)
        weights = torch.softmax(answers @ self.context, dim=-1)
        pooled = (weights[:, None].to(answers.dtype) @ answers).view_as(frames)
        return self.norm(self.mlp(torch.cat((pooled, frames, masked_mean(objects, mask)), dim=-1)))


FUSION_TYPES = {"concat": ConcatFusion, "cross_attention": CrossAttentionFusion, "query": QueryFusion}
