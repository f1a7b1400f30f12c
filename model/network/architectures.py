"""The twelve architectures as a table: encoders x fusions x decoders. Imports no torch: partitions derive from it."""

from itertools import product
from typing import Literal, NamedTuple, get_args

from model.common.errors import DataError

Encoder = Literal["simple", "attention"]
Fusion = Literal["concat", "cross_attention", "query"]
Decoder = Literal["lstm", "transformer"]


class Architecture(NamedTuple):
    """One choice of each part; the name is `{encoder}_{fusion}_{decoder}`."""

    encoder_type: str
    fusion_type: str
    decoder_type: str

    @property
    def name(self) -> str:
        return "_".join(self)


_BY_NAME = {
    architecture.name: architecture
    for architecture in (Architecture(*c) for c in product(*map(get_args, (Encoder, Fusion, Decoder))))
}
ARCHITECTURES = tuple(_BY_NAME)


def parse(name: str) -> Architecture:
    """The parts of an architecture's name.

    Raises:
        DataError: `name` is none of the twelve.
    """
    if name not in _BY_NAME:
        raise DataError(f"Unknown architecture {name!r}: expected one of {', '.join(ARCHITECTURES)}.")
    return _BY_NAME[name]
