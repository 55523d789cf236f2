"""The mean by plain rational arithmetic, element by element: slow, and easy to believe."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.common.dtypes import is_float

Array = NDArray[Any]

_UNIT = 1074  # every float64 is a whole number of 2**-1074


def exact_mean(tensors: Sequence[Array], weights: Sequence[int]) -> Array:
    """Weighted mean of equal-shaped tensors, to the nearest number of their dtype."""
    dtype = tensors[0].dtype.newbyteorder("=")
    total = sum(weights)
    means = [
        nearest(sum(units(v) * w for v, w in zip(values, weights, strict=True)), total, dtype)
        for values in zip(*(t.reshape(-1).tolist() for t in tensors), strict=True)
    ]
    mean = np.array(means, dtype=dtype).reshape(tensors[0].shape)
    if is_float(dtype):
        weighted = [tensor for tensor, weight in zip(tensors, weights, strict=True) if weight]
        mean[np.all([_is_minus_zero(tensor) for tensor in weighted], axis=0)] = -0.0
    return mean


def _is_minus_zero(tensor: Array) -> Array:
    wide = tensor.astype(np.float64)
    minus: Array = (wide == 0) & np.signbit(wide)
    return minus


def units(value: float) -> int:
    """A number of at most float64's precision as a multiple of 2**-1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT - denominator.bit_length() + 1)


def nearest(total: int, weight: int, dtype: np.dtype[Any]) -> float | int:
    """``total * 2**-1074 / weight``, rounded half to even to ``dtype``."""
    denominator = weight << _UNIT
    if not is_float(dtype):
        return round(Fraction(total, denominator))  # Python rounds half to even
    rounded = total / denominator  # Python rounds int / int correctly
    return (
        rounded + 0.0
        if dtype.itemsize == 8
        else _nearest_narrow(total, denominator, rounded, dtype)
    )


def _nearest_narrow(total: int, denominator: int, near: float, dtype: np.dtype[Any]) -> float:
    """The nearest of the numbers around ``near``, by distance, and of two the one that is even."""
    bits = f"u{dtype.itemsize}"
    sign = 1 << (8 * dtype.itemsize - 1)
    # Whatever numpy rounds to, perhaps twice, is next to it: the bits of neighbours are neighbours.
    middle = int(np.abs(np.array(near, dtype)).view(bits))
    around = np.array([max(middle - 1, 0), middle, middle + 1], bits)
    with np.errstate(all="ignore"):
        values = around.view(dtype).astype(np.float64)

    def distance(place: int) -> tuple[int, int]:
        off = abs(units(float(values[place])) * denominator - abs(total << _UNIT))
        return off, int(around[place]) & 1

    finite = [place for place in range(3) if np.isfinite(values[place]) and around[place] < sign]
    nearest_one = float(values[min(finite, key=distance)])
    return (nearest_one if total >= 0 else -nearest_one) + 0.0
