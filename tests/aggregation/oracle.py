"""The mean by plain rational arithmetic, element by element: slow, and easy to believe."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

_UNIT = 1074  # every float64 is a whole number of 2**-1074


def exact_mean(tensors: Sequence[Array], weights: Sequence[int]) -> Array:
    """Weighted mean of equal-shaped tensors, to the nearest number of their dtype."""
    dtype = tensors[0].dtype
    total = sum(weights)
    means = [
        nearest(sum(units(v) * w for v, w in zip(values, weights, strict=True)), total, dtype)
        for values in zip(*(t.reshape(-1).tolist() for t in tensors), strict=True)
    ]
    return np.array(means, dtype=dtype).reshape(tensors[0].shape)


def units(value: float) -> int:
    """A number of at most float64's precision as a multiple of 2**-1074."""
    numerator, denominator = value.as_integer_ratio()
    return numerator << (_UNIT - denominator.bit_length() + 1)


def nearest(total: int, weight: int, dtype: np.dtype[Any]) -> float | int:
    """``total * 2**-1074 / weight``, rounded half to even to ``dtype``."""
    denominator = weight << _UNIT
    if dtype.kind != "f":
        return round(Fraction(total, denominator))  # Python rounds half to even
    rounded = total / denominator  # Python rounds int / int correctly
    return (
        rounded + 0.0
        if dtype.itemsize == 8
        else _nearest_narrow(total, denominator, rounded, dtype)
    )


def _nearest_narrow(total: int, denominator: int, near: float, dtype: np.dtype[Any]) -> float:
    """The nearest of the numbers around ``near``, by distance, and of two the one that is even."""
    middle = dtype.newbyteorder("=").type(near)
    limit = np.finfo(dtype).max
    around = {middle, np.nextafter(middle, -limit), np.nextafter(middle, limit)}

    def distance(candidate: Any) -> tuple[int, int]:
        off = abs(units(float(candidate)) * denominator - (total << _UNIT))
        return off, int(candidate.view(f"u{dtype.itemsize}")) & 1

    return float(min(around, key=distance)) + 0.0
