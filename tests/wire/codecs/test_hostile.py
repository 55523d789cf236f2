"""Encoded bytes that no encoder made: each is a typed error, and costs no memory."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from collections.abc import Callable

import numpy as np
import pytest
import zstandard
from hypothesis import example, given
from hypothesis import strategies as st

from flmq.common.errors import MalformedMessage
from flmq.wire.codecs import CODECS, Codec, get_codec
from tests.wire.codecs.cases import MAX_BYTES, npy

BASE = np.linspace(-1, 1, 2000).astype(np.float32)
TENSOR = BASE + np.float32(0.01) * np.cos(BASE)
COMPRESSED = CODECS[1:]
LOSSLESS, FP16, BF16, INT8 = range(4)
DELTA, BASE_HEADER = 1, 2

every_codec = pytest.mark.parametrize(
    "codec", [get_codec(name) for name in COMPRESSED], ids=COMPRESSED
)


def decode(codec: Codec, record: bytes, base: bytes | None = None) -> bytes:
    bases = None if base is None else [base]
    (tensor,) = codec.decode([record], bases, max_bytes=MAX_BYTES)
    return tensor


def record(
    blocks: bytes,
    *,
    code: int = LOSSLESS,
    flags: int = 0,
    width: int = 4,
    values_bytes: int = 8,
    header: bytes = b"",
    layout: int = 1,
) -> bytes:
    """An encoded tensor with a right check sum over whatever one likes."""
    fixed = struct.pack("<BBBBQH", layout, code, flags, width, values_bytes, len(header))
    crc = zlib.crc32(fixed + header + blocks)
    return fixed + struct.pack("<I", crc) + header + blocks


def stored(data: bytes) -> bytes:
    return struct.pack("<I", len(data) | 1 << 31) + data


def compressed(data: bytes) -> bytes:
    frame = zstandard.ZstdCompressor().compress(data)
    return struct.pack("<I", len(frame)) + frame


class TestDamage:
    @every_codec
    def test_every_truncation_is_found(self, codec: Codec) -> None:
        (whole,) = codec.encode(npy(TENSOR), npy(BASE))
        for length in [*range(40), *range(40, len(whole), 97), len(whole) - 1]:
            with pytest.raises(MalformedMessage, match="encoded tensor 0"):
                decode(codec, whole[:length], npy(BASE)[0])

    @every_codec
    def test_every_damaged_byte_is_found(self, codec: Codec) -> None:
        (whole,) = codec.encode(npy(TENSOR[:50]), npy(BASE[:50]))
        for place in range(len(whole)):
            damaged = bytearray(whole)
            damaged[place] ^= 0x41
            with pytest.raises(MalformedMessage):
                decode(codec, bytes(damaged), npy(BASE[:50])[0])

    @every_codec
    def test_bytes_that_follow_are_found(self, codec: Codec) -> None:
        (whole,) = codec.encode(npy(TENSOR))
        with pytest.raises(MalformedMessage):
            decode(codec, whole + b"\x00")

    @every_codec
    @given(noise=st.binary(max_size=200))
    def test_noise(self, codec: Codec, noise: bytes) -> None:
        with pytest.raises(MalformedMessage):
            decode(codec, noise)

    @every_codec
    def test_the_error_names_the_tensor(self, codec: Codec) -> None:
        encoded = codec.encode(npy(TENSOR, TENSOR))
        with pytest.raises(MalformedMessage, match="encoded tensor 1: "):
            codec.decode([encoded[0], encoded[1][:-1]], max_bytes=MAX_BYTES)


class TestLies:
    """Records whose check sum is right."""

    @pytest.mark.parametrize(
        ("lie", "said"),
        [
            (record(stored(b"12345678"), layout=2), "layout 2"),
            (record(stored(b"12345678"), flags=16), "flags 16"),
            (record(stored(b"12345678"), flags=BASE_HEADER), "or no base"),
            (record(stored(b"12345678"), width=3), "words of 3"),
            (record(stored(b"12345678"), width=0), "words of 0"),
            (record(stored(b"1234567"), values_bytes=7), "words of 4"),
            (record(stored(b"12345678"), code=9), "scheme 9 is not one of codec 'int8'"),
            (record(stored(b"12345678"), code=FP16), "scheme 1 is not one of codec 'int8'"),
            (record(stored(b"12345678"), code=INT8, width=2), "lossy scheme on words of 2"),
            (record(b""), "blocks are missing"),
            (record(b"\x01\x00"), "blocks are missing"),
            (record(struct.pack("<I", 99) + b"x"), "last block is truncated"),
            (record(stored(b"1234567")), "7 bytes instead of 8"),
            (record(stored(b"123456789")), "9 bytes instead of 8"),
            (record(stored(b"12345678") + b"x"), "1 bytes follow the last block"),
            (record(compressed(b"123456789")), "promises 9 bytes instead of 8"),
            (record(struct.pack("<I", 8) + b"no frame"), "zstd cannot read"),
            (record(stored(b"12345678"), header=b"no header"), "not .npy bytes"),
            (record(stored(b"12345678"), header=npy(TENSOR)[0][:128]), "promises 8000 bytes"),
            (record(b"", values_bytes=0, header=npy(TENSOR)[0][:128]), "promises 8000 bytes"),
        ],
        ids=lambda value: value if isinstance(value, str) else "",
    )
    def test_are_found(self, lie: bytes, said: str) -> None:
        with pytest.raises(MalformedMessage, match=said):
            decode(get_codec("int8"), lie)

    def test_a_header_shorter_than_promised(self) -> None:
        fixed = struct.pack("<BBBBQH", 1, 0, 0, 4, 8, 500)
        lie = fixed + struct.pack("<I", zlib.crc32(fixed + b"short")) + b"short"
        with pytest.raises(MalformedMessage, match="ends after 5 bytes"):
            decode(get_codec("zstd"), lie)

    def test_a_frame_with_something_behind_it(self) -> None:
        frame = zstandard.ZstdCompressor().compress(b"12345678") + b"more"
        with pytest.raises(MalformedMessage, match="zstd cannot read"):
            decode(get_codec("zstd"), record(struct.pack("<I", len(frame)) + frame))

    @pytest.mark.parametrize("step", [np.nan, np.inf, 0.0, -1.0])
    def test_an_int8_step_that_does_not_occur(self, step: float) -> None:
        packed = b"\x01\x02" + np.float32(step).tobytes()
        with pytest.raises(MalformedMessage, match="positive and finite"):
            decode(get_codec("int8"), record(stored(packed), code=INT8))

    @pytest.mark.parametrize("exponent", [127, -127, 32767, -32768])
    @pytest.mark.parametrize(("name", "code"), [("fp16", FP16), ("bf16", BF16)])
    def test_a_scale_that_does_not_occur(self, name: str, code: int, exponent: int) -> None:
        packed = b"\x00\x00\x3c\x3c" + struct.pack("<h", exponent)
        with pytest.raises(MalformedMessage, match="does not occur"):
            decode(get_codec(name), record(stored(packed), code=code))

    @pytest.mark.parametrize(("name", "code"), [("fp16", FP16), ("bf16", BF16)])
    def test_infinity_is_not_hidden_from_the_models_own_checks(self, name: str, code: int) -> None:
        packed = b"\xff\xff\x7f\x7f" + struct.pack("<h", -126)
        values = decode(get_codec(name), record(stored(packed), code=code))
        assert not np.isfinite(np.frombuffer(values, "f4")).any()

    @given(st.binary(max_size=60), st.integers(0, 255), st.integers(0, 31), st.integers(0, 9))
    @example(b"", 0, DELTA | BASE_HEADER, 4)
    def test_anything_else(self, blocks: bytes, code: int, flags: int, width: int) -> None:
        for name in COMPRESSED:
            for base in (None, npy(BASE[:2])[0], b"no npy"):
                lie = record(blocks, code=code % 5, flags=flags, width=width)
                try:
                    tensor = decode(get_codec(name), lie, base)
                except MalformedMessage:
                    continue
                assert len(tensor) in (8, 136)


class TestBombs:
    """Few bytes that promise many."""

    def test_a_promise_beyond_the_limit_allocates_nothing(self) -> None:
        lie = record(stored(b""), values_bytes=1 << 62)
        assert peak_of(lambda: refused(lie, "promises 4611686018427387904 bytes")) < 1 << 20

    def test_a_frame_that_promises_more_than_its_block_allocates_nothing(self) -> None:
        assert peak_of(lambda: refused(_BOMB, "instead of 8")) < 1 << 20

    def test_a_frame_without_a_promise_allocates_nothing(self) -> None:
        assert peak_of(lambda: refused(_SILENT_BOMB, "instead of 8")) < 1 << 20

    def test_a_frame_that_breaks_its_promise_allocates_no_more_than_that(self) -> None:
        # The frame header's content size (RFC 8878, 3.1.1.1.4) overwritten: 8 instead of 2**24.
        frame = bytearray(_BOMB_FRAME)
        size = frame.index(struct.pack("<I", 1 << 24))
        frame[size : size + 4] = struct.pack("<I", 8)
        lie = record(struct.pack("<I", len(frame)) + bytes(frame))
        assert peak_of(lambda: refused(lie, "zstd cannot read|instead of 8")) < 1 << 20

    @every_codec
    def test_the_limit_is_that_of_all_tensors_together(self, codec: Codec) -> None:
        tensors = npy(np.zeros(1000), np.zeros(1000))
        encoded = codec.encode(tensors)
        total = sum(map(len, tensors))
        assert len(codec.decode(encoded, max_bytes=total)) == 2
        with pytest.raises(MalformedMessage, match=r"encoded tensor 1: it promises 8128 bytes, 81"):
            codec.decode(encoded, max_bytes=total - 1)


class TestBase:
    @every_codec
    def test_missing(self, codec: Codec) -> None:
        encoded = codec.encode(npy(TENSOR, TENSOR), npy(TENSOR, BASE))
        with pytest.raises(MalformedMessage, match="0: it is a difference to a base that is not"):
            codec.decode(encoded, max_bytes=MAX_BYTES)
        with pytest.raises(MalformedMessage, match="1: it is a difference to a base that is not"):
            codec.decode(encoded, npy(TENSOR), max_bytes=MAX_BYTES)

    @every_codec
    @pytest.mark.parametrize(
        "other",
        [BASE[:-1], BASE.astype("f8"), BASE.astype(">f4"), np.float32(1), np.zeros(0, "f4")],
        ids=["length", "width", "byte order", "0-d", "empty"],
    )
    def test_of_another_form(self, codec: Codec, other: np.ndarray) -> None:
        (encoded,) = codec.encode(npy(TENSOR), npy(BASE))
        with pytest.raises(MalformedMessage, match="it is a difference to 2000 words of"):
            decode(codec, encoded, npy(other)[0])

    @every_codec
    def test_of_another_form_with_as_many_words(self, codec: Codec) -> None:
        tensor, base = TENSOR.reshape(20, 100), BASE.reshape(20, 100)
        (encoded,) = codec.encode(npy(np.asfortranarray(tensor)), npy(base))
        for other in (BASE.reshape(100, 20), BASE.view("i4").reshape(20, 100)):
            with pytest.raises(MalformedMessage, match=r"it has the form .* its base"):
                decode(codec, encoded, npy(other)[0])

    @every_codec
    def test_that_is_no_npy(self, codec: Codec) -> None:
        (encoded,) = codec.encode(npy(TENSOR), npy(BASE))
        with pytest.raises(MalformedMessage, match=r"no \.npy byte string"):
            decode(codec, encoded, b"x" * 8000)


_BOMB_FRAME = zstandard.ZstdCompressor().compress(bytes(1 << 24))
_BOMB = record(struct.pack("<I", len(_BOMB_FRAME)) + _BOMB_FRAME)
_SILENT_FRAME = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1 << 24))
_SILENT_BOMB = record(struct.pack("<I", len(_SILENT_FRAME)) + _SILENT_FRAME)


def refused(lie: bytes, said: str) -> None:
    with pytest.raises(MalformedMessage, match=said):
        decode(get_codec("zstd"), lie)


def peak_of(call: Callable[[], None]) -> int:
    """Bytes that Python and NumPy hold at most during a call, beyond what they held before."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
