"""quickXorHash, the hash that SharePoint reports for files.

Byte i is XORed into a 160-bit number at bit (11 i mod 160), wrapping at its end; the 64-bit length is XORed into the
last eight bytes. (Microsoft, "QuickXorHash algorithm", OneDrive developer documentation.) Since 11 * 160 is a multiple
of 160, bytes that are 160 apart share a bit, so that all but the last step is an XOR of rows of 160 bytes.
"""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

BITS = 160
SHIFT = 11
ROW = 160
"""Bytes after which the bit positions repeat."""
CHUNK = 1 << 18
WIDE_ROW = 64 * ROW
"""Bytes XORed at a time: enough to make numpy's cost a row small, few enough to stay in the processor's first cache."""


class QuickXorHash:
    """A running hash with the interface of hashlib."""

    def __init__(self) -> None:
        self._row: NDArray[np.uint8] = np.zeros(ROW, np.uint8)
        self._length = 0

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add bytes."""
        block = np.frombuffer(data, np.uint8)
        wide = len(block) // WIDE_ROW * WIDE_ROW
        folded = np.zeros(ROW, np.uint8)
        if wide:
            rows = block[:wide].view(np.uint64).reshape(-1, WIDE_ROW // 8)
            folded ^= np.bitwise_xor.reduce(np.bitwise_xor.reduce(rows, axis=0).view(np.uint8).reshape(-1, ROW), axis=0)
        rest = np.zeros(-(-(len(block) - wide) // ROW) * ROW, np.uint8)
        rest[: len(block) - wide] = block[wide:]
        folded ^= np.bitwise_xor.reduce(rest.reshape(-1, ROW), axis=0)
        self._row ^= np.roll(folded, self._length % ROW)
        self._length += len(block)

    def digest(self) -> bytes:
        """The hash of all bytes so far (20 bytes)."""
        value = 0
        for place, byte in enumerate(self._row.tolist()):
            value ^= byte << (place * SHIFT % BITS)
        value = (value & ((1 << BITS) - 1)) ^ (value >> BITS)
        return (value ^ (self._length << (BITS - 64))).to_bytes(BITS // 8, "little")

    def base64(self) -> str:
        """The hash as Graph writes it."""
        return base64.b64encode(self.digest()).decode("ascii")


def hash_file(path: Path) -> str:
    """The hash of a file's content, as Graph writes it."""
    running = QuickXorHash()
    with path.open("rb", buffering=0) as stream:
        while chunk := stream.read(CHUNK):
            running.update(chunk)
    return running.base64()
