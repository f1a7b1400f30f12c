"""Fusions: embeddings of frames (B,T,E) and of the objects (N,E) in the frames' sets to one sequence (B,T,E)."""

import torch
from torch import Tensor, nn

from model.network.attention import Attention, mlp
from model.network.config import ModelConfig
from model.network.sets import ObjectSets

QUERIES = 8


class ConcatFusion(nn.Module):
    """The mean of a frame's detections next to its telemetry, through an MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.mlp = mlp(2 * dim, 2 * dim, dim, config.dropout_prob)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, objects: Tensor, sets: ObjectSets) -> Tensor:
        return self.norm(self.mlp(torch.cat((frames, sets.mean(objects).view_as(frames)), dim=-1)))


class CrossAttentionFusion(nn.Module):
    """Each frame's telemetry queries the frame's detections, then a residual MLP."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        dim = config.embedding_dim
        self.attention = Attention(dim, config.attention_num_heads)
        self.attention_norm = nn.LayerNorm(dim)
        self.mlp = mlp(dim, 2 * dim, dim, config.dropout_prob)
        self.norm = nn.LayerNorm(dim)

    def forward(self, frames: Tensor, objects: Tensor, sets: ObjectSets) -> Tensor:
        seen = self.attention.to_sets(frames.flatten(0, 1)[:, None], objects, sets)
        fused = self.attention_norm(frames + seen.view_as(frames))
        return self.norm(fused + self.mlp(fused))


class QueryFusion(nn.Module):
    """Eight learnt queries attend to the window's telemetry, then to each frame's detections.

    A learnt context vector weights the eight answers of a frame. Their sum is concatenated with the frame's telemetry
    and the mean of its detections.
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

    def forward(self, frames: Tensor, objects: Tensor, sets: ObjectSets) -> Tensor:
        queries = self.telemetry_norm(self.queries + self.telemetry_attention(self.queries[None], frames))
        answers = self.object_attention.to_sets(queries, objects, sets).view(*frames.shape[:2], *self.queries.shape)
        answers = self.object_norm(queries[:, None] + answers)  # (B,T,QUERIES,E)
        weights = torch.softmax(answers @ self.context, dim=-1)
        pooled = (weights[..., None, :].to(answers.dtype) @ answers).squeeze(-2)
        return self.norm(self.mlp(torch.cat((pooled, frames, sets.mean(objects).view_as(frames)), dim=-1)))


FUSION_TYPES = {"concat": ConcatFusion, "cross_attention": CrossAttentionFusion, "query": QueryFusion}
