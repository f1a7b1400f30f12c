"""The twelve architectures as a table: encoders x fusions x decoders. Imports no torch: partitions derive from it."""

from itertools import product
from typing import Literal, get_args

Encoder = Literal["simple", "attention"]
Fusion = Literal["concat", "cross_attention", "query"]
Decoder = Literal["lstm", "transformer"]


PARTS = {
    "_".join(parts): dict(zip(("encoder_type", "fusion_type", "decoder_type"), parts, strict=True))
    for parts in product(*map(get_args, (Encoder, Fusion, Decoder)))
}
"""The parts of each architecture by its name `{encoder}_{fusion}_{decoder}`."""
ARCHITECTURES = tuple(PARTS)
