"""quickXorHash, the hash that SharePoint reports for files.

Byte i is XORed into a 160-bit number at bit (11 i mod 160), wrapping at its end; the 64-bit length is XORed into the
last eight bytes. (Microsoft, "QuickXorHash algorithm", OneDrive developer documentation.) Since 11 * 160 is a multiple
of 160, bytes that are 160 apart share a bit, so that all but the last step is an XOR of rows of 160 bytes.
"""

import base64
from pathlib import Path

import numpy as np

BITS = 160
SHIFT = 11
ROW = 160
"""Bytes after which the bit positions repeat."""
CHUNK = 2000 * ROW


def hash_file(path: Path) -> str:
    """The hash of a file's content, as Graph writes it."""
    row, length, value = np.zeros(ROW, np.uint8), 0, 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            length += len(chunk)
            rows = np.frombuffer(chunk + bytes(-len(chunk) % ROW), np.uint8).reshape(-1, ROW)
            row ^= np.bitwise_xor.reduce(rows, axis=0)
    for place, byte in enumerate(row.tolist()):
        value ^= byte << (place * SHIFT % BITS)
    value = (value & ((1 << BITS) - 1)) ^ (value >> BITS)
    value ^= length << (BITS - 64)
    return base64.b64encode(value.to_bytes(BITS // 8, "little")).decode("ascii")
