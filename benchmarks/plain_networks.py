"""The twelve networks in plain form: every slot is computed, and attention runs frame by frame.

The fast formulation is timed against it. It shares the weights of the network that it is made from.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.factory import MultimodalModel
from model.network.attention import Attention
from model.network.decoders import LstmDecoder
from model.network.encoders import AttentionEncoder, SimpleEncoder
from model.network.fusions import ConcatFusion, CrossAttentionFusion


class PlainModel(nn.Module):
    """A network with the same weights, without optimisations and without derived inputs."""

    def __init__(self, model: MultimodalModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, telemetry: Tensor, detections: Tensor, mask: Tensor) -> dict[str, Tensor]:
        frames, objects = encode(self.model.encoder, telemetry, detections, mask)
        return self.model.heads(decode(self.model.decoder, fuse(self.model.fusion, frames, objects, mask)))


def attention(layer: Attention, queries: Tensor, members: Tensor, mask: Tensor) -> Tensor:
    """queries (B,Q,E) to members (B,K,E), real where mask (B,K) is True; an empty set gives the bias."""
    query, key, value = (
        part(x).unflatten(-1, (layer.heads, -1)).transpose(1, 2)
        for part, x in ((layer.query, queries), (layer.key, members), (layer.value, members))
    )
    some = mask.any(dim=-1)[:, None, None, None]
    allowed = mask[:, None, None, :] | ~some
    attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed) * some
    return layer.output(attended.transpose(1, 2).flatten(2))


def by_frame(layer: Attention, queries: Tensor, objects: Tensor, mask: Tensor) -> Tensor:
    """queries (B,T,Q,E) of each frame to its objects (B,T,K,E) -> (B,T,Q,E)."""
    steps = range(mask.shape[1])
    return torch.stack([attention(layer, queries[:, t], objects[:, t], mask[:, t]) for t in steps], dim=1)


def encode(
    encoder: SimpleEncoder | AttentionEncoder, telemetry: Tensor, detections: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    frames = encoder.telemetry_norm(encoder.telemetry(telemetry) + encoder.positions[: telemetry.shape[1]])
    objects = encoder.detection_norm(encoder.detection(detections)) * mask[..., None]
    if isinstance(encoder, AttentionEncoder):
        every = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
        frames = encoder.time_norm(
            frames + encoder.time_dropout(attention(encoder.time_attention, frames, frames, every))
        )
        objects = encoder.object_norm(objects + by_frame(encoder.object_attention, objects, objects, mask))
        objects = objects * mask[..., None]
    return frames, objects


def fuse(fusion: nn.Module, frames: Tensor, objects: Tensor, mask: Tensor) -> Tensor:
    mean = objects.sum(dim=2) / mask.sum(dim=2, keepdim=True).clamp(min=1)
    if isinstance(fusion, ConcatFusion):
        return fusion.norm(fusion.mlp(torch.cat((frames, mean), dim=-1)))
    if isinstance(fusion, CrossAttentionFusion):
        seen = by_frame(fusion.attention, frames[:, :, None], objects, mask).squeeze(2)
        fused = fusion.attention_norm(frames + seen)
        return fusion.norm(fused + fusion.mlp(fused))
    every = torch.ones(frames.shape[:2], dtype=torch.bool, device=frames.device)
    queries = fusion.queries.expand(len(frames), -1, -1)
    queries = fusion.telemetry_norm(queries + attention(fusion.telemetry_attention, queries, frames, every))
    queries = queries[:, None].expand(-1, frames.shape[1], -1, -1)
    answers = fusion.object_norm(queries + by_frame(fusion.object_attention, queries, objects, mask))
    weights = torch.softmax(answers @ fusion.context, dim=-1)
    pooled = (weights[..., None] * answers).sum(dim=2)
    return fusion.norm(fusion.mlp(torch.cat((pooled, frames, mean), dim=-1)))


def decode(decoder: nn.Module, fused: Tensor) -> Tensor:
    if isinstance(decoder, LstmDecoder):
        return decoder.lstm(fused)[0][:, -1]
    x = decoder.widen(fused)
    for layer in decoder.layers.layers:
        x = nn.TransformerEncoderLayer.forward(layer, x)
    return decoder.layers.norm(x)[:, -1]
