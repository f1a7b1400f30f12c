"""Multi-head attention over sequences and over sets that may be empty. It cannot give NaN."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.sets import ObjectSets

SMALL_PRODUCT = 400
"""Multiplications in a product of matrices below which torch 2.14 computes a batch of them number by number."""


class Dropout(nn.Dropout):
    """Dropout that takes 16 random bits a value on a CPU, which defines the random numbers of a training there.

    The probability is rounded down to a multiple of 2**-16, and the values that stay are scaled accordingly.
    """

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0 or x.device.type != "cpu":
            return super().forward(x)
        dropped = int(self.p * 2**16)
        random = torch.empty(x.numel() // 4 + 1, dtype=torch.int64).random_(-(2**63), None).view(torch.int16)
        kept = random[: x.numel()].view(x.shape) >= dropped - 2**15
        return x * kept.to(x.dtype).mul_(2**16 / (2**16 - dropped))


def mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Two linear layers with a ReLU and dropout between them."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), Dropout(dropout), nn.Linear(hidden, outputs))


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention of queries (S,Q,E) to members (S,K,E), real where mask (S,K) is True -> (S,Q,E); zero for an empty set.

    The softmax over an empty set is NaN. Such a set is attended to as if it were full and the result is multiplied by
    zero, so that values and gradients stay finite. The weights have no dropout, so that fused kernels can be used.
    """
    query, key, value = (torch.unflatten(x, -1, (heads, -1)) for x in (query, key, value))
    if mask is None and query.device.type == "cpu":
        return _attend_on_cpu(query, key, value).flatten(2)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if mask is not None:
        some = mask.any(dim=-1)[:, None, None, None]
        allowed = (mask[:, None, None, :] | ~some).expand(-1, -1, query.shape[2], -1)
        attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed) * some
    else:
        attended = functional.scaled_dot_product_attention(query, key, value)
    return attended.transpose(1, 2).flatten(2)


def _attend_on_cpu(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Queries (S,Q,H,D) of H heads to members (S,K,H,D) -> (S,Q,H,D).

    Fused attention is slow for sequences and sets of at most 20. Products that torch would compute number by number are
    sums over whole tensors, in single precision, and weights have the members before the queries, since a softmax over
    a short last dimension is slow too.
    """
    query = query * query.shape[-1] ** -0.5
    if query.shape[1] == 1 or query.shape[1] * query.shape[3] * key.shape[1] < SMALL_PRODUCT:
        query, key, given = query.float(), key.float(), value.dtype
        weights = torch.softmax((query[:, None] * key[:, :, None]).sum(dim=-1), dim=1)  # (S,K,Q,H)
        return (weights[..., None] * value.float()[:, :, None]).sum(dim=1).to(given)
    query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    weights = torch.softmax(key @ query.mT, dim=-2)  # (S,H,K,Q)
    return (weights.to(value.dtype).mT @ value).transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention. For an empty set it returns the bias of the last layer: a learnt "nothing seen"."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, members: Tensor) -> Tensor:
        """Queries (S,Q,E), or (1,Q,E) shared by all, to sequences (S,K,E) -> (S,Q,E)."""
        query = self.query(queries).expand(len(members), -1, -1)
        return self.output(attend(query, self.key(members), self.value(members), self.heads))

    def to_sets(self, queries: Tensor, objects: Tensor, sets: ObjectSets) -> Tensor:
        """Queries (S,Q,E) of each frame, or (B,Q,E) of each of B windows of frames, to the frame's set -> (S,Q,E)."""
        query = sets.split_frames(self.query(queries))
        parts = zip(query, sets.split(self.key(objects)), sets.split(self.value(objects)), strict=True)
        return self.output(sets.join_frames([attend(*part, self.heads, sets.mask) for part in parts]))

    def within_sets(self, objects: Tensor, sets: ObjectSets) -> Tensor:
        """Objects (N,E) to the objects of the same set -> (N,E)."""
        query, key, value = (sets.split(layer(objects)) for layer in (self.query, self.key, self.value))
        attended = [attend(*part, self.heads, sets.mask) for part in zip(query, key, value, strict=True)]
        return self.output(torch.cat([part.flatten(0, 1) for part in attended]))
