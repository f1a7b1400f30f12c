"""Several small networks in one, which read the derived inputs and each give an answer."""

import math

import torch
from torch import Tensor, nn

from model.network.config import ModelConfig

BINS = 8
BIN_DIM = 4
"""Width of the embedding of a feature's bins."""
QUANTILE_WINDOWS = 10_000
"""Windows from which quantiles are computed: torch.quantile takes at most 16 million numbers."""
FARTHEST = 5.0
"""Standard deviations from the mean at which a feature is clipped."""


class Members(nn.Module):
    """`config.members` networks that share their weight matrices, after TabM (Gorishniy et al. 2024, 2410.24210).

    A member has its own scales of each layer's inputs and outputs, its own biases and its own heads. Features are
    standardised, and also encoded by quantiles (piecewise linear encoding, Gorishniy et al. 2022, 2203.05556), which
    `measure` takes from train.
    """

    def __init__(self, config: ModelConfig, inputs: int) -> None:
        super().__init__()
        members, hidden, outputs = config.members, config.members_dim, len(config.outputs)
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("deviation", torch.ones(inputs))
        self.register_buffer("edges", torch.linspace(0, 1, BINS + 1).expand(inputs, -1).clone())
        self.mean: Tensor
        self.deviation: Tensor
        self.edges: Tensor
        self.bins = nn.Parameter(torch.randn(inputs, BINS, BIN_DIM) * 0.5 * BINS**-0.5)
        self.bin_bias = nn.Parameter(torch.zeros(inputs, BIN_DIM))
        self.layers = nn.ModuleList(
            (SharedLinear(inputs * (1 + BIN_DIM), hidden, members, signs=True), SharedLinear(hidden, hidden, members))
        )
        self.dropout = nn.Dropout(config.dropout_prob)
        self.heads = nn.Parameter(torch.randn(members, hidden, outputs) * 0.5 * hidden**-0.5)
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    @torch.no_grad()
    def measure(self, features: Tensor) -> None:
        """Set mean, deviation and quantiles from the features (W,F) of train."""
        self.mean.copy_(features.mean(0))
        self.deviation.copy_(features.std(0).clamp(min=1e-6) if len(features) > 1 else torch.ones_like(self.deviation))
        some = self._standardised(features[:: math.ceil(len(features) / QUANTILE_WINDOWS)])
        self.edges.copy_(torch.quantile(some, torch.linspace(0, 1, BINS + 1, device=some.device), dim=0).T)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B,F) -> logits (B,members,outputs)."""
        x = self._standardised(features)
        low, width = self.edges[:, :-1], self.edges.diff(dim=1).clamp(min=1e-4)
        shares = ((x[..., None] - low) / width).clamp(0, 1)
        bins = torch.relu(torch.einsum("bfq,fqd->bfd", shares, self.bins) + self.bin_bias)
        x = torch.cat((x, bins.flatten(1)), dim=-1)[:, None]
        for layer in self.layers:
            x = self.dropout(torch.relu(layer(x)))
        return torch.einsum("bmh,mho->bmo", x, self.heads) + self.bias

    def _standardised(self, features: Tensor) -> Tensor:
        return ((features - self.mean) / self.deviation).clamp(-FARTHEST, FARTHEST)


class SharedLinear(nn.Module):
    """A linear layer with weights shared by all members, between scales of each (BatchEnsemble, Wen et al. 2020).

    With `signs` the members start different: each has some inputs with the opposite sign.
    """

    def __init__(self, inputs: int, outputs: int, members: int, signs: bool = False) -> None:
        super().__init__()
        self.shared = nn.Linear(inputs, outputs, bias=False)
        self.scale_in = nn.Parameter(torch.randn(members, inputs).sign() if signs else torch.ones(members, inputs))
        self.scale_out = nn.Parameter(torch.ones(members, outputs))
        self.bias = nn.Parameter(torch.zeros(members, outputs))

    def forward(self, x: Tensor) -> Tensor:
        """(B,members or 1,inputs) -> (B,members,outputs)."""
        out: Tensor = self.shared(x * self.scale_in) * self.scale_out + self.bias
        return out
