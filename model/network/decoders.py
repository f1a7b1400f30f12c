"""Decoders: a fused sequence (B,T,E) to its summary (B,H), and the heads that map it to logits."""

import functools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.network.attention import Dropout, attend, mlp
from model.network.config import ModelConfig

PRIOR = 0.05
"""Probability that an untrained head returns: positives are rare (Lin et al. 2017, section 3.3)."""

FORGET_GATE = 1
"""Index among the input, forget, cell and output gates, in the order in which torch stacks them."""


class LstmDecoder(nn.Module):
    """A stacked LSTM; its last state.

    Input weights are Glorot uniform for each gate and forget gates start open (Jozefowicz et al. 2015): with PyTorch's
    initialisation the signal fades over 20 frames and four layers, and the first epochs learn next to nothing.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        layers = config.decoder_num_layers
        dropout = config.dropout_prob if layers > 1 else 0.0
        self.lstm = nn.LSTM(config.embedding_dim, config.hidden_dim, layers, batch_first=True, dropout=dropout)
        self.dropout = Dropout(dropout)
        with torch.no_grad():
            for name, parameter in self.lstm.named_parameters():
                if name.startswith("weight_ih"):
                    for gate in parameter.chunk(4):
                        nn.init.xavier_uniform_(gate)
                elif name.startswith("bias_ih"):
                    parameter.chunk(4)[FORGET_GATE].add_(1.0)

    def forward(self, fused: Tensor) -> Tensor:
        if fused.device.type == "cpu" and not _bf16_on_cpu():
            # oneDNN has no bf16 LSTM for a processor without AVX-512.
            with torch.autocast("cpu", enabled=False):
                return self._last_state(fused.float())
        return self._last_state(fused)

    def _last_state(self, fused: Tensor) -> Tensor:
        if fused.device.type != "cpu" or not self.training:
            states, _ = self.lstm(fused)
            return states[:, -1]
        states = fused.transpose(0, 1)
        start = fused.new_zeros(1, len(fused), self.lstm.hidden_size)
        for number, weights in enumerate(self.lstm.all_weights):  # layer by layer, with our dropout in between
            states = self.dropout(states) if number else states
            states, _, _ = torch.lstm(states, (start, start), [*weights], True, 1, 0.0, True, False, False)
        return states[-1]


@functools.cache
def _bf16_on_cpu() -> bool:
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported


class TransformerLayer(nn.TransformerEncoderLayer):
    """A transformer layer, norm first, that can compute the last position only. Attention weights have no dropout."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__(dim, heads, 2 * dim, dropout, batch_first=True, norm_first=True)
        self.dropout, self.dropout1, self.dropout2 = (Dropout(dropout) for _ in range(3))

    def forward(self, x: Tensor, last_only: bool = False) -> Tensor:  # type: ignore[override]
        """(B,T,H) -> (B,T,H), or (B,1,H) of the last position."""
        attention, normed = self.self_attn, self.norm1(x)
        if last_only:
            x = x[:, -1:]
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        inputs = (normed[:, -x.shape[1] :], normed, normed)
        query, key, value = map(functional.linear, inputs, weights, biases)
        x = x + self.dropout1(attention.out_proj(attend(query, key, value, attention.num_heads)))
        return x + self.dropout2(self.linear2(self.dropout(torch.relu(self.linear1(self.norm2(x))))))


class TransformerDecoder(nn.Module):
    """Transformer layers; the summary is the last position, the only one that the last layer computes."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, heads, dropout = config.hidden_dim, config.attention_num_heads, config.dropout_prob
        self.widen = nn.Linear(config.embedding_dim, hidden)
        layer = TransformerLayer(hidden, heads, dropout)
        self.layers = nn.TransformerEncoder(
            layer, config.decoder_num_layers, norm=nn.LayerNorm(hidden), enable_nested_tensor=False
        )

    def forward(self, fused: Tensor) -> Tensor:
        x = self.widen(fused)
        *earlier, last = self.layers.layers
        for layer in earlier:
            x = layer(x)
        return self.layers.norm(last(x, last_only=True)).squeeze(1)  # type: ignore[misc]


class TaskHeads(nn.Module):
    """A two-layer head for each output of the network."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden_dim
        self.heads = nn.ModuleDict({task: mlp(hidden, hidden // 2, 1, config.dropout_prob) for task in config.outputs})
        for head in self.heads.values():
            nn.init.constant_(head[-1].bias, math.log(PRIOR / (1 - PRIOR)))  # type: ignore[index]

    def forward(self, summary: Tensor) -> dict[str, Tensor]:
        """(B,H) -> {task: logits (B,)}."""
        return {task: torch.squeeze(head(summary), -1) for task, head in self.heads.items()}


DECODER_TYPES = {"lstm": LstmDecoder, "transformer": TransformerDecoder}
