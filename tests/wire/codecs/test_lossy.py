"""The lossy codecs' stated errors, for any numbers; the same numbers give the same bits."""

from __future__ import annotations

from hashlib import blake2b
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flmq.common.parameter import bytes_to_ndarray
from flmq.common.typing import NDArray
from flmq.wire.codecs import get_codec
from tests.wire.codecs.cases import MAX_BYTES, npy

LOSSY = ("fp16", "bf16", "int8")
BLOCK, GROUP = 1 << 17, 1024

lossy_codec = pytest.mark.parametrize("name", LOSSY)
either_width = pytest.mark.parametrize("dtype", ["<f4", "<f8", ">f4", ">f8"])


def there_and_back(name: str, tensor: NDArray, base: NDArray | None) -> NDArray:
    codec = get_codec(name)
    bases = None if base is None else npy(base)
    (decoded,) = codec.decode(codec.encode(npy(tensor), bases), bases, max_bytes=MAX_BYTES)
    return bytes_to_ndarray(decoded)


def bound(name: str, d: NDArray, y: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """What the docstrings of ``flmq.wire.codecs.lossy`` say, in long doubles."""
    info = np.finfo(dtype)
    always = np.abs(y) * np.longdouble(2) ** -(info.nmant + 1) + np.longdouble(info.tiny)
    if name == "int8":
        return largest(d, GROUP) / 253 + always
    digits = {"fp16": 11, "bf16": 8}[name]
    return np.abs(d) * np.longdouble(2) ** -digits + largest(d, BLOCK) * 2.0**-39 + always


def largest(d: NDArray, length: int) -> NDArray:
    """For each number the largest magnitude among the ``length`` that share its scale."""
    starts = np.arange(0, len(d), length)
    peaks = np.maximum.reduceat(np.abs(d), starts)
    return np.repeat(peaks, length)[: len(d)]


def assert_within_bound(name: str, tensor: NDArray, base: NDArray | None) -> None:
    decoded = there_and_back(name, tensor, base)
    assert decoded.dtype.str == tensor.dtype.str
    assert decoded.shape == tensor.shape
    x, y = (array.astype(np.longdouble).reshape(-1) for array in (tensor, decoded))
    d = x if base is None else x - base.astype(np.longdouble).reshape(-1)
    if len(x):
        error = np.abs(y - x)
        assert (error <= bound(name, d, y, tensor.dtype)).all()


def floats(dtype: str) -> st.SearchStrategy[Any]:
    """Every finite number that the lossy codecs take, subnormal ones too, and near ones."""
    width: Any = 8 * np.dtype(dtype).itemsize
    limit = float(np.finfo(dtype).max) / 4.01
    if width == 32:
        limit = float(np.float32(limit))
    wild = st.floats(-limit, limit, width=width)
    small = st.floats(-1, 1, width=width)
    return wild | small


@st.composite
def updates(draw: st.DrawFn) -> tuple[NDArray, NDArray | None]:
    """A tensor and the base it came from, or none."""
    dtype = draw(st.sampled_from(["<f4", "<f8", ">f4", ">f8"]))
    shape = draw(npst.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=40))
    arrays = npst.arrays(dtype, shape, elements=floats(dtype))
    return draw(arrays), draw(st.none() | arrays)


class TestStatedError:
    @lossy_codec
    @given(update=updates())
    def test_holds_for_any_numbers(self, name: str, update: tuple[NDArray, NDArray | None]) -> None:
        assert_within_bound(name, *update)

    @lossy_codec
    @either_width
    @pytest.mark.parametrize("size", [1e-30, 1e-8, 1e-3, 1.0, 1e6])
    def test_holds_for_updates_of_any_size(self, name: str, dtype: str, size: float) -> None:
        rng = np.random.default_rng(3)
        base = rng.standard_normal(3000).astype(dtype)
        update = size * rng.standard_normal(3000) * np.exp(3 * rng.standard_normal(3000))
        assert_within_bound(name, (base + update).astype(dtype), base)
        assert_within_bound(name, update.astype(dtype), None)
        assert_within_bound(name, update.astype(dtype), np.zeros(3000, dtype))

    @lossy_codec
    @either_width
    def test_holds_for_the_smallest_numbers(self, name: str, dtype: str) -> None:
        least = np.finfo(dtype).smallest_subnormal
        tensor = (np.arange(-50, 50) * least).astype(dtype)
        assert_within_bound(name, tensor, None)
        assert_within_bound(name, tensor, tensor[::-1].copy())

    @lossy_codec
    def test_holds_across_blocks(self, name: str) -> None:
        rng = np.random.default_rng(4)
        size = np.exp(np.linspace(-9, 9, 2 * BLOCK + 77))
        assert_within_bound(name, (size * rng.standard_normal(len(size))).astype("f4"), None)

    @lossy_codec
    def test_is_that_of_the_update_whatever_the_memory_order(self, name: str) -> None:
        rng = np.random.default_rng(5)
        base = rng.standard_normal((40, 30)).astype("f4")
        tensor = base + np.float32(1e-3) * rng.standard_normal((40, 30)).astype("f4")
        decoded = there_and_back(name, np.asfortranarray(tensor), base)
        assert decoded.flags.f_contiguous
        # Without the base it would be that of the numbers, a thousand times as large.
        assert_within_bound(name, tensor, np.asfortranarray(base))
        assert np.abs(decoded - tensor).max() < 3e-5


class TestChoice:
    """Closed forms: numbers whose nearest neighbours are known."""

    def test_int8_rounds_half_to_even(self) -> None:
        tensor = np.array([127, 0.5, 1.5, 2.5, -0.5, -1.5, 126.5], "f4")
        assert there_and_back("int8", tensor, None).tolist() == [127, 0, 2, 2, 0, -2, 126]

    def test_fp16_rounds_half_to_even(self) -> None:
        tensor = np.array([2048, 2049, 2051, -2049], "f4")
        assert there_and_back("fp16", tensor, None).tolist() == [2048, 2048, 2052, -2048]

    def test_bf16_rounds_half_to_even(self) -> None:
        tensor = np.array([256, 257, 259, -257], "f4")
        assert there_and_back("bf16", tensor, None).tolist() == [256, 256, 260, -256]

    def test_fp16_keeps_updates_that_binary16_alone_would_lose(self) -> None:
        tensor = np.array([1e-9, 3e-10], "f4")
        assert np.float16(tensor[0]) == 0
        decoded = there_and_back("fp16", tensor, np.zeros(2, "f4"))
        assert np.abs(decoded / tensor - 1).max() < 2**-11

    def test_fp16_keeps_numbers_beyond_the_range_of_binary16(self) -> None:
        tensor = np.array([1e30, -7e33, 3e37], "f4")
        assert np.abs(there_and_back("fp16", tensor, None) / tensor - 1).max() < 2**-11


class TestSameBits:
    @lossy_codec
    def test_encoding_twice_gives_the_same(self, name: str) -> None:
        rng = np.random.default_rng(6)
        base, tensor = npy(*rng.standard_normal((2, 5000)).astype("f4"))
        codec, other = get_codec(name), get_codec(name)
        encoded = codec.encode([tensor], [base])
        assert encoded == other.encode([tensor], [base])
        once, twice = (c.decode(encoded, [base], max_bytes=MAX_BYTES) for c in (codec, other))
        assert once == twice

    @lossy_codec
    @pytest.mark.parametrize("width", [4, 8])
    def test_byte_order_and_callers_error_settings_change_nothing(
        self, name: str, width: int
    ) -> None:
        rng = np.random.default_rng(8)
        base, tensor = rng.standard_normal((2, 3000)).astype(f"<f{width}")
        expected = there_and_back(name, tensor, base)
        swapped = f">f{width}"
        assert np.array_equal(
            there_and_back(name, tensor.astype(swapped), base.astype(swapped)), expected
        )
        with np.errstate(all="raise"):
            assert np.array_equal(there_and_back(name, tensor, base), expected)

    @pytest.mark.parametrize(
        ("name", "digest"),
        [("fp16", "f867fe59ad9cb0ce"), ("bf16", "a53465f406fabf28"), ("int8", "c7244098b4c3c6df")],
    )
    def test_decoded_bits_are_those_of_every_machine(self, name: str, digest: str) -> None:
        # Whole numbers over powers of two: no library's logarithm or sine is involved.
        numbers = np.arange(1, 4001)
        base = (numbers / 1024).astype("f4")
        tensor = base + ((numbers * 7919 % 9973 - 4986) / 2**24).astype("f4")
        decoded = there_and_back(name, tensor, base).astype("<f4")
        assert blake2b(decoded.tobytes(), digest_size=8).hexdigest() == digest
