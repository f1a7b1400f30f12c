"""Multi-head attention over sets that may be empty, without NaN by construction."""

from torch import Tensor, nn
from torch.nn import functional


def mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    """Two linear layers with a ReLU and dropout between."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs))


class Attention(nn.Module):
    """Multi-head attention of queries to a masked set.

    The softmax over a set with no member is NaN. Here such a set is attended to as if it were full and the result is
    then multiplied by zero, so that values and gradients stay finite, and the output is the bias of the last layer: a
    learnt "nothing seen". There is no dropout on the weights, which leaves fused kernels usable.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(dim, dim)
        self.key = nn.Linear(dim, dim)
        self.value = nn.Linear(dim, dim)
        self.output = nn.Linear(dim, dim)

    def forward(self, queries: Tensor, members: Tensor, mask: Tensor | None = None) -> Tensor:
        """queries (S,Q,E) to members (S,K,E), real where mask (S,K) is True -> (S,Q,E)."""
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, members), (self.value, members))
        )
        if mask is None:
            attended = functional.scaled_dot_product_attention(query, key, value)
        else:
            some = mask.any(dim=-1)[:, None, None]
            allowed = (mask[:, None, None, :] | ~some[..., None]).expand(-1, -1, queries.shape[1], -1)
            attended = functional.scaled_dot_product_attention(query, key, value, attn_mask=allowed)
            attended = attended * some[..., None]
        return self.output(attended.transpose(1, 2).flatten(2))


def masked_mean(members: Tensor, mask: Tensor) -> Tensor:
    """Mean over the real members of sets (...,K,E) -> (...,E); zero for an empty set. Masked members must be zero."""
    return members.sum(dim=-2) / mask.sum(dim=-1, keepdim=True).clamp(min=1)
