"""Tensors of every kind that parameters may have, and a way to make more."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from flmq.common.parameter import ndarray_to_bytes
from flmq.common.typing import NDArray

MAX_BYTES = 1 << 30

_RNG = np.random.default_rng(7)
_GRID = _RNG.standard_normal((5, 3, 4)).astype(np.float32)

DTYPES = (
    *("?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", ">i2", ">u8"),
    *("f2", "f4", "f8", ">f2", ">f4", ">f8", "c8", "c16", ">c8"),
    *("bfloat16", "float8_e4m3fn", "float8_e5m2", "g", "G"),
)

ARRAYS: dict[str, NDArray] = {
    "0-d": np.array(3.5),
    "0-d bool": np.array(True),
    "empty": np.zeros(0, np.float32),
    "empty 2-d": np.zeros((0, 3), np.int8),
    "empty Fortran": np.zeros((3, 0, 2), order="F"),
    "C": _GRID,
    "Fortran": np.asfortranarray(_GRID),
    "a column": np.ones((7, 1), np.float32, order="F"),
    "special values": np.array([np.nan, -np.nan, np.inf, -np.inf, -0.0, 0.0, 5e-324]),
    "NaN payloads": np.array([0x7F800001, 0xFFC12345, 0x7FC00000], "u4").view("f4"),
    "signalling NaN float64": np.array([0x7FF0000000000001], "u8").view("f8"),
    "longer than a block": _RNG.standard_normal(2 * (1 << 17) + 5).astype(np.float32),
    "just one block": _RNG.integers(0, 2, 1 << 17).astype(np.bool_),
    **{f"dtype {dtype}": (_RNG.standard_normal(40) * 50).astype(dtype) for dtype in DTYPES},
}


def any_array(
    dtypes: st.SearchStrategy[np.dtype[Any]] | None = None, max_side: int = 12
) -> st.SearchStrategy[NDArray]:
    """Arrays of any bits, up to three dimensions, in either memory order."""
    kinds: st.SearchStrategy[np.dtype[Any]] = dtypes or st.sampled_from(DTYPES[:-2]).map(np.dtype)
    shapes = npst.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=max_side)
    orders: st.SearchStrategy[Any] = st.sampled_from("CF")
    return st.builds(_from_bits, kinds, shapes, orders, st.randoms(use_true_random=False))


def base_of(array: NDArray) -> NDArray:
    """Another array of the same form, whose numbers are mostly near those of ``array``."""
    rng = np.random.default_rng(array.size)
    with np.errstate(all="ignore"):
        other = (array * rng.choice([1, 1, 0.99, 0, -3], array.shape)).astype(array.dtype)
    return np.asarray(other, order="C")


def npy(*arrays: NDArray) -> list[bytes]:
    """Each as an ``.npy`` byte string."""
    return [_npy(array) for array in arrays]


def _npy(array: NDArray) -> bytes:
    if array.dtype.isnative:
        return ndarray_to_bytes(array)
    file = io.BytesIO()  # as other programs write it: ours makes it little-endian
    np.save(file, array)
    return file.getvalue()


def npy_2_0(array: NDArray) -> bytes:
    """The same with the longer header of version 2.0, as other programs may write it."""
    plain = ndarray_to_bytes(array)
    (length,) = struct.unpack("<H", plain[8:10])
    return plain[:6] + b"\x02\x00" + struct.pack("<I", length) + plain[10:]


def _from_bits(dtype: np.dtype[Any], shape: tuple[int, ...], order: Any, random: Any) -> NDArray:
    count = int(np.prod(shape)) * dtype.itemsize
    bits = bytearray(random.randbytes(count))
    if dtype.kind == "b":
        bits = bytearray(bit & 1 for bit in bits)
    return np.frombuffer(bits, dtype).reshape(shape, order=order)
