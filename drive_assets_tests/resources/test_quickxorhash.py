"""quickXorHash against known values and a literal implementation of its definition."""

import base64
import random
from pathlib import Path

import pytest

from drive_assets.resources.sharepoint.quickxorhash import CHUNK, ROW, hash_file


def bit_by_bit(data: bytes) -> bytes:
    """The definition: bit b of byte i is XORed into bit (11 i + b) mod 160; then the length into the last 8 bytes."""
    bits = [0] * 160
    for i, byte in enumerate(data):
        for b in range(8):
            bits[(11 * i + b) % 160] ^= byte >> b & 1
    hashed = bytearray(sum(bits[8 * n + b] << b for b in range(8)) for n in range(20))
    for n, byte in enumerate(len(data).to_bytes(8, "little")):
        hashed[12 + n] ^= byte
    return bytes(hashed)


@pytest.mark.parametrize(
    ("content", "known"), [(b"", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), (b"\x4a", "SgAAAAAAAAAAAAAAAQAAAAAAAAA=")]
)
def test_known_values(tmp_path: Path, content: bytes, known: str) -> None:
    (tmp_path / "file").write_bytes(content)
    assert hash_file(tmp_path / "file") == known


@pytest.mark.parametrize("size", [1, 14, ROW - 1, ROW, ROW + 1, 5 * ROW + 77, CHUNK, CHUNK + 1, 2 * CHUNK + 333])
def test_files_of_any_size_hash_like_the_definition(tmp_path: Path, size: int) -> None:
    content = random.Random(size).randbytes(size)
    (tmp_path / "file").write_bytes(content)
    assert base64.b64decode(hash_file(tmp_path / "file")) == bit_by_bit(content)
