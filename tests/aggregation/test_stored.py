"""A stored accumulator is read back as it was, or refused."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest

from flmq.aggregation import MeanAccumulator, specs_of
from flmq.common.errors import StoredDataError
from tests.aggregation.numbers import any_bits, normal, outliers
from tests.aggregation.oracle import Array


@pytest.fixture(scope="module")
def total() -> MeanAccumulator:
    """Limbs, spilled numbers and all kinds of tensors."""
    rng = np.random.default_rng(3)
    tensors: list[Array] = [
        normal(rng, np.dtype("float32"), 40_000).reshape(400, 100),
        outliers(rng, np.dtype("float64"), 200),
        any_bits(rng, np.dtype(">f4"), 70),
        np.array(41),
        np.zeros((3, 0), np.float16),
        np.array([True, False]),
        any_bits(rng, np.dtype("bfloat16"), 90),
        any_bits(rng, np.dtype("float8_e4m3fn"), 90),
        np.array([-0.0, 0.0, 1.0, -0.0]),
    ]
    accumulator = MeanAccumulator(specs_of(tensors))
    accumulator.add(tensors, 600)
    accumulator.add(tensors, 601)
    return accumulator


def sealed(body: bytes) -> bytes:
    return body + struct.pack("<I", zlib.crc32(body))


def test_it_comes_back(total: MeanAccumulator) -> None:
    stored = total.to_bytes()
    again = MeanAccumulator.from_bytes(memoryview(stored))
    assert again.to_bytes() == stored
    assert [t.tobytes() for t in again.finish()] == [t.tobytes() for t in total.finish()]


def test_pieces_are_small_and_make_up_the_bytes(total: MeanAccumulator) -> None:
    pieces = [bytes(piece) for piece in total.to_pieces()]
    assert b"".join(pieces) == total.to_bytes()
    assert max(map(len, pieces)) <= 1 << 18


def test_an_empty_one_is_small() -> None:
    tensors = [np.zeros((1000, 1000), np.float32)]
    assert len(MeanAccumulator(specs_of(tensors)).to_bytes()) < 400


def test_every_cut_is_refused(total: MeanAccumulator) -> None:
    stored = total.to_bytes()
    for stop in [*range(60), *range(60, len(stored), 4999), len(stored) - 1]:
        with pytest.raises(StoredDataError, match="checksum"):
            MeanAccumulator.from_bytes(stored[:stop])


def test_every_cut_with_a_checksum_of_its_own_is_refused(total: MeanAccumulator) -> None:
    body = total.to_bytes()[:-4]
    for stop in [*range(200), *range(200, len(body), 4999), len(body) - 1]:
        with pytest.raises(StoredDataError):
            MeanAccumulator.from_bytes(sealed(body[:stop]))


def test_flipped_bits_are_refused(total: MeanAccumulator) -> None:
    stored = total.to_bytes()
    for position in [*range(80), *range(80, len(stored), 9973)]:
        damaged = bytearray(stored)
        damaged[position] ^= 4
        with pytest.raises(StoredDataError, match="checksum"):
            MeanAccumulator.from_bytes(damaged)


def test_flipped_bits_with_a_checksum_of_their_own_are_refused_or_harmless(
    total: MeanAccumulator,
) -> None:
    """No flip anywhere in the head gives anything but a typed error or a well-formed sum."""
    body = total.to_bytes()[:-4]
    refused = 0
    for position in range(150):
        damaged = bytearray(body)
        damaged[position] ^= 0x81
        try:
            MeanAccumulator.from_bytes(sealed(bytes(damaged)))
        except StoredDataError:
            refused += 1
    assert refused > 100


HEAD = struct.Struct("<8sHII")


def spec(name: bytes, *shape: int) -> bytes:
    return bytes([len(name)]) + name + bytes([len(shape)]) + struct.pack(f"<{len(shape)}Q", *shape)


def stored(specs: bytes, blocks: bytes, weight: bytes = b"\1\0\5", count: int = 1) -> bytes:
    return sealed(HEAD.pack(b"flmqsum\0", 2, 1 << 15, count) + specs + weight + blocks)


EMPTY = struct.pack("<HII", 0, 0, 0)
LIMB = struct.pack("<HiQ", 1, -40, 100)

BAD: dict[str, tuple[bytes, str]] = {
    "another file": (sealed(b"\x93NUMPY" + bytes(40)), "does not begin"),
    "a newer version": (sealed(HEAD.pack(b"flmqsum\0", 3, 1 << 15, 0)), "version 3"),
    "other blocks": (sealed(HEAD.pack(b"flmqsum\0", 2, 99, 0)), "blocks of 99"),
    "terabytes promised": (stored(spec(b"<f4", 1 << 60), EMPTY), "too short"),
    "a shape that overflows": (stored(spec(b"<f4", 1 << 63, 1 << 63), EMPTY), "too short"),
    "objects": (stored(spec(b"|O", 1), EMPTY), "none that have a mean"),
    "complex": (stored(spec(b"<c8", 1), EMPTY), "none that have a mean"),
    "no dtype": (stored(spec(b"\xff\xfe", 1), EMPTY), "none that have a mean"),
    "millions of tensors": (stored(spec(b"<f4", 1), EMPTY, count=1 << 31), "damaged"),
    "a negative weight": (stored(spec(b"<f4", 1), EMPTY, b"\1\0\xff"), "weight is negative"),
    "more than is said": (stored(spec(b"<f4", 1), EMPTY + b"x"), "left over"),
    "a lying load": (
        stored(spec(b"<f4", 1), LIMB + struct.pack("<qII", 101, 0, 0)),
        "more than it says",
    ),
    "an unlikely exponent": (
        stored(spec(b"<f4", 1), struct.pack("<HiQqII", 1, 1 << 30, 9, 0, 0, 0)),
        "not as limbs are",
    ),
    "a full limb": (
        stored(spec(b"<f4", 1), struct.pack("<HiQqII", 1, 0, 1 << 62, 0, 0, 0)),
        "not as limbs are",
    ),
    "too many limbs": (stored(spec(b"<f4", 1), struct.pack("<HII", 999, 0, 0)), "too many"),
    "a position outside": (
        stored(spec(b"<f4", 1), struct.pack("<HIIHb", 0, 1, 1, 1, 7)),
        "outside of its block",
    ),
    "a negative zero outside": (
        stored(spec(b"bfloat16", 1), struct.pack("<HIIIHb", 0, 0, 1, 1, 1, 7)),
        "negative zero lies outside",
    ),
    "narrow numbers": (stored(spec(b"int4", 1), EMPTY), "none that have a mean"),
}


@pytest.mark.parametrize(("data", "message"), BAD.values(), ids=BAD)
def test_what_no_accumulator_has_stored(data: bytes, message: str) -> None:
    with pytest.raises(StoredDataError, match=message):
        MeanAccumulator.from_bytes(data)


def test_the_smallest_that_is_well_formed() -> None:
    """So that the cases above fail for the reason they name."""
    data = stored(spec(b"<f4", 1), LIMB + struct.pack("<qII", -100, 0, 0))
    (mean,) = MeanAccumulator.from_bytes(data).finish()
    assert mean.tolist() == [-20 * 2.0**-40]


def test_limbs_that_are_full_and_next_to_each_other_are_added_up() -> None:
    most = 2**62 - 1
    limbs = b"".join(struct.pack("<iQq", e, most, most) for e in (0, 1))
    data = stored(spec(b"<f8", 1), struct.pack("<H", 2) + limbs + struct.pack("<II", 0, 0))
    (mean,) = MeanAccumulator.from_bytes(data).finish()
    assert mean.tolist() == [3 * most / 5]


@pytest.mark.parametrize("name", [b",f8", b"f8,f8", b"(2,)f4", b"<U9", b"1"])
def test_only_dtypes_of_numbers_are_read(name: bytes) -> None:
    """numpy evaluates some texts as Python does: ",f8" is a SyntaxError to it."""
    with pytest.raises(StoredDataError, match="not of numbers"):
        MeanAccumulator.from_bytes(forged(name))


@pytest.mark.parametrize("dtype", ["<f8", "<i2", "|b1"])
def test_the_mean_of_a_forged_sum_raises_nothing(dtype: str) -> None:
    """One whose numbers are larger than any of its dtype."""
    (mean,) = MeanAccumulator.from_bytes(forged(dtype.encode())).finish()
    limits = {"<f8": [np.inf, -np.inf], "<i2": [2**15 - 1, -(2**15)], "|b1": [True, False]}
    assert mean.tolist() == limits[dtype]


def forged(name: bytes) -> bytes:
    weight = (2**60).to_bytes(9, "little", signed=True)
    (block,) = struct.unpack_from("<I", MeanAccumulator(()).to_bytes(), 10)
    head = struct.pack("<8sHII", b"flmqsum\0", 2, block, 1)
    spec = bytes([len(name)]) + name + b"\1" + struct.pack("<Q", 2)
    limb = struct.pack("<HiQqq", 1, 9000, 2**50, 2**50, -(2**50))
    body = head + spec + struct.pack("<H", 9) + weight + limb + struct.pack("<II", 0, 0)
    return sealed(body)
