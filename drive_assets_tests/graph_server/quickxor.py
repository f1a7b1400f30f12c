"""quickXorHash, written apart from the client's: byte i of a file is XORed in at bit 11 i mod 160."""

import base64
from pathlib import Path

import numpy as np

ROW, ROWS = 160, 4096
"""160 bytes on, a byte meets the same bit again: rows of 160 bytes fold into one."""


def quick_xor_hash(path: Path) -> str:
    """Base64 of the 160-bit hash of a file's content."""
    folded, length = np.zeros(ROW, np.uint8), 0
    with path.open("rb", buffering=0) as stream:
        buffer = bytearray(ROW * ROWS)
        while filled := _fill(stream, buffer):
            buffer[filled:] = bytes(len(buffer) - filled)
            folded ^= np.bitwise_xor.reduce(np.frombuffer(buffer, np.uint64).reshape(ROWS, -1), axis=0).view(np.uint8)
            length += filled
    value = 0
    for index, byte in enumerate(folded.tolist()):
        placed = byte << (11 * index % 160)
        value ^= (placed | placed >> 160) & ((1 << 160) - 1)
    value ^= length << 96  # the length's 64 bits go into bytes 12..19
    return base64.b64encode(value.to_bytes(20, "little")).decode()


def _fill(stream, buffer: bytearray) -> int:  # type: ignore[no-untyped-def]
    filled, view = 0, memoryview(buffer)
    while filled < len(buffer) and (read := stream.readinto(view[filled:])):
        filled += read
    return filled
