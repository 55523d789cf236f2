"""Chunks: none can be cut, swapped, reordered, or taken from another blob."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import MalformedMessage
from flmq.e2e.chunks import ChunkCipher, content_key
from flmq.e2e.errors import Forged
from flmq.e2e.names import CHUNK_OVERHEAD

DIGEST = "ab" * 32
KEY = content_key(b"s" * 32, "model", DIGEST, 1 << 20)
CIPHER = ChunkCipher(KEY, DIGEST, 3)


@given(st.binary(min_size=1, max_size=100), st.integers(0, 2))
def test_a_chunk_opens_to_what_it_was(plain: bytes, index: int) -> None:
    sealed = CIPHER.encrypt(index, plain)
    assert len(sealed) == len(plain) + CHUNK_OVERHEAD
    assert CIPHER.decrypt(index, sealed) == plain
    place = bytearray(len(plain))
    CIPHER.decrypt_into(index, memoryview(sealed), memoryview(place))
    assert place == plain


@given(st.integers(0, (50 + CHUNK_OVERHEAD) * 8 - 1))
def test_a_flipped_bit_is_refused(at: int) -> None:
    sealed = bytearray(CIPHER.encrypt(1, b"x" * 50))
    sealed[at // 8] ^= 1 << at % 8
    with pytest.raises(Forged, match="chunk 1"):
        CIPHER.decrypt(1, sealed)
    with pytest.raises(Forged, match="chunk 1"):
        CIPHER.decrypt_into(1, sealed, memoryview(bytearray(50)))


@pytest.mark.parametrize("size", [0, 1, 15, 16, 65, 67])
def test_a_cut_chunk_is_refused(size: int) -> None:
    sealed = (CIPHER.encrypt(0, b"x" * 50) + b"\0")[:size]
    with pytest.raises(Forged):
        CIPHER.decrypt(0, sealed)
    with pytest.raises(Forged):
        CIPHER.decrypt_into(0, sealed, memoryview(bytearray(50)))


def test_a_chunk_at_another_place_is_refused() -> None:
    with pytest.raises(Forged):
        CIPHER.decrypt(1, CIPHER.encrypt(0, b"x"))


@pytest.mark.parametrize(
    "other",
    [
        ChunkCipher(KEY, "cd" * 32, 3),
        ChunkCipher(KEY, DIGEST, 2),
        ChunkCipher(content_key(b"t" * 32, "model", DIGEST, 1 << 20), DIGEST, 3),
        ChunkCipher(content_key(b"s" * 32, "reply", DIGEST, 1 << 20), DIGEST, 3),
        ChunkCipher(content_key(b"s" * 32, "model", DIGEST, 1 << 19), DIGEST, 3),
        ChunkCipher(content_key(b"s" * 32, "model", "cd" * 32, 1 << 20), DIGEST, 3),
    ],
    ids=["digest", "count", "secret", "purpose", "chunk size", "content"],
)
def test_a_chunk_of_another_blob_is_refused(other: ChunkCipher) -> None:
    with pytest.raises(Forged):
        CIPHER.decrypt(0, other.encrypt(0, b"x"))


def test_a_resumed_server_makes_the_same_chunks() -> None:
    again = ChunkCipher(content_key(b"s" * 32, "model", DIGEST, 1 << 20), DIGEST, 3)
    assert again.encrypt(2, b"x" * 9) == CIPHER.encrypt(2, b"x" * 9)


def test_a_chunk_of_today_opens_for_ever() -> None:
    assert CIPHER.encrypt(2, b"weights").hex() == "59f56823d85a76c428f288f13ae0ff4c83e9c205b96137"


def test_a_key_of_another_size_is_refused() -> None:
    with pytest.raises(MalformedMessage, match="31 bytes"):
        ChunkCipher(b"k" * 31, DIGEST, 1)
