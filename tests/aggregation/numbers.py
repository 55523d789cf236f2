"""Arrays of every character: sizes mixed or alike, subnormal, cancelling, ties."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from flmq.common.dtypes import NARROW_FLOATS, first_not_finite

Array = NDArray[Any]
Maker = Callable[[np.random.Generator, np.dtype[Any], int], Array]

NATIVE = ("float16", "float32", "float64", ">f2", ">f4", ">f8")
NARROW = tuple(NARROW_FLOATS)
FLOATS = (*NATIVE, "bfloat16", "float8_e4m3fn", "float8_e5m2")
INTEGERS = ("int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", ">i8", "bool")


def info_of(dtype: np.dtype[Any]) -> Any:
    """What ``numpy.finfo`` says, for narrow floats too."""
    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def any_bits(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """All magnitudes alike, from the least subnormal number to the largest."""
    bits = rng.integers(0, 256, size * dtype.itemsize, dtype=np.uint8)
    values = bits.view(dtype.newbyteorder("=")).copy()
    with np.errstate(all="ignore"):
        values[~np.isfinite(values)] = 0
    assert first_not_finite(values) is None
    return values.astype(dtype)


def normal(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """What the weights of a model look like."""
    return (0.05 * rng.standard_normal(size)).astype(dtype)


def subnormal(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Numbers of few bits at the very bottom."""
    least = info_of(dtype).smallest_subnormal
    return (rng.integers(-9, 10, size) * float(least)).astype(dtype)


def _width(dtype: np.dtype[Any]) -> int:
    """How many powers of two there are below and above one, or somewhat fewer."""
    return min(int(math.log2(float(info_of(dtype).max))), 100)


def scaled(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Alike within an array, far apart between arrays."""
    width = _width(dtype)
    return (rng.uniform(-1, 1, size) * 2.0 ** rng.integers(-width, width)).astype(dtype)


def outliers(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """A few of the largest and the least numbers among ordinary ones."""
    values = normal(rng, dtype, size)
    values[rng.integers(0, size, size // 20)] = info_of(dtype).max
    values[rng.integers(0, size, size // 20)] = info_of(dtype).min
    values[rng.integers(0, size, size // 20)] = info_of(dtype).smallest_subnormal
    return values


def graded(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Ordinary numbers and, in the same tensor, smaller and smaller ones."""
    width = _width(dtype)
    return (rng.standard_normal(size) * 2.0 ** -rng.integers(0, width, size)).astype(dtype)


def largest(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """The largest number, of either sign: sums overflow the dtype, means do not."""
    return (rng.choice([-1.0, 1.0, 1.0], size) * float(info_of(dtype).max)).astype(dtype)


def few_bits(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Neighbours of one: with equal weights, half of the means are ties."""
    ulp = float(info_of(dtype).eps)
    return (1.0 + rng.integers(0, 8, size) * ulp).astype(dtype)


def zeros(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Zeros of both signs."""
    return np.where(rng.integers(0, 2, size) == 0, 0.0, -0.0).astype(dtype)


MAKERS: tuple[Maker, ...] = (
    any_bits,
    normal,
    subnormal,
    scaled,
    outliers,
    graded,
    largest,
    few_bits,
    zeros,
)


def whole(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Integers or bools over their whole range."""
    if dtype.kind == "b":
        return rng.integers(0, 2, size).astype(bool)
    info = np.iinfo(dtype)
    native: Any = dtype.newbyteorder("=")
    return rng.integers(info.min, info.max, size, dtype=native, endpoint=True).astype(dtype)


def counts(rng: np.random.Generator, dtype: np.dtype[Any], size: int) -> Array:
    """Small integers, as counters hold."""
    return rng.integers(0, 2 if dtype.kind == "b" else 100, size).astype(dtype)
