"""quickXorHash against known values and a literal implementation of its definition."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from drive_assets.resources.sharepoint.quickxorhash import WIDE_ROW, QuickXorHash


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


def hash_of(*chunks: bytes) -> QuickXorHash:
    running = QuickXorHash()
    for chunk in chunks:
        running.update(chunk)
    return running


def test_known_values() -> None:
    assert hash_of().base64() == "AAAAAAAAAAAAAAAAAAAAAAAAAAA="
    assert hash_of(b"\x4a").base64() == "SgAAAAAAAAAAAAAAAQAAAAAAAAA="


@given(st.lists(st.binary(max_size=700), max_size=6))
def test_any_chunks_hash_like_the_definition(chunks: list[bytes]) -> None:
    assert hash_of(*chunks).digest() == bit_by_bit(b"".join(chunks))


@settings(max_examples=20)
@given(st.integers(0, 400), st.integers(-200, 200), st.integers(0, 1000))
def test_chunks_of_many_rows_hash_like_the_definition(head: int, difference: int, seed: int) -> None:
    data = random.Random(seed).randbytes(head + 2 * WIDE_ROW + difference)
    running = hash_of(data[:head], memoryview(data)[head:])
    assert running.digest() == bit_by_bit(data)
    assert running.digest() == running.digest(), "digest changes nothing"
