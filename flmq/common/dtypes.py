"""The dtypes that tensors may have: numpy's numbers, and the narrow floats of ml_dtypes.

To numpy, bfloat16 and the float8 family are *void*: ``dtype.kind`` is "V", and ``dtype.str`` "<V2",
or "<V1" for half a dozen of them. What they are is said here, and only here: which dtypes are of
floating-point numbers, what ``.npy`` headers call them, and how numbers are rounded to them.

Sources: IEEE 754-2019; Kalamkar et al., "A Study of BFLOAT16", arXiv:1905.12322; Micikevicius et
al., "FP8 Formats for Deep Learning", arXiv:2209.05433.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

from flmq.common.typing import NDArray

__all__ = [
    "NARROW_FLOATS",
    "FloatFormat",
    "descr_of",
    "first_not_finite",
    "is_float",
    "is_narrow",
    "largest",
    "little_endian",
    "nearest",
    "rounded",
]

NARROW_FLOATS: dict[str, np.dtype[Any]] = {
    name: np.dtype(getattr(ml_dtypes, name))
    for name in (
        "bfloat16",
        "float8_e3m4",
        "float8_e4m3",
        "float8_e4m3b11fnuz",
        "float8_e4m3fn",
        "float8_e4m3fnuz",
        "float8_e5m2",
        "float8_e5m2fnuz",
    )
}
"""By the name in an ``.npy`` header, which ``numpy.load`` knows too once ml_dtypes is imported.

ml_dtypes' other types are left out: scales without sign or zero (e8m0), and numbers of 2 to 6 bits,
of which a byte each would be sent. They are results of quantization, and nobody trains in them.
"""

_NARROW = frozenset(NARROW_FLOATS.values())

_BLOCK = 1 << 16
"""Values checked at a time: the resulting booleans (64 KiB) fit the cache."""


@dataclass(frozen=True, slots=True)
class FloatFormat:
    """Binary floating-point format: ``precision`` significant bits, the smallest bit 2**min_exp."""

    precision: int
    min_exp: int

    @classmethod
    def of(cls, dtype: np.dtype[Any]) -> FloatFormat:
        """Return the format of float16, float32, float64 or one of `NARROW_FLOATS`."""
        if is_narrow(dtype):
            return _NARROW_FORMATS[dtype]
        return _FORMATS[dtype.itemsize]


_FORMATS = {2: FloatFormat(11, -24), 4: FloatFormat(24, -149), 8: FloatFormat(53, -1074)}


def _narrow_format(dtype: np.dtype[Any]) -> FloatFormat:
    info = ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]
    return FloatFormat(int(info.nmant) + 1, int(info.minexp) - int(info.nmant))


_NARROW_FORMATS = {dtype: _narrow_format(dtype) for dtype in _NARROW}


def descr_of(dtype: np.dtype[Any]) -> str:
    """Return what an ``.npy`` header calls ``dtype``."""
    return dtype.name if is_narrow(dtype) else dtype.str


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is one of `NARROW_FLOATS`."""
    return dtype in _NARROW


def is_float(dtype: np.dtype[Any]) -> bool:
    """Return whether ``dtype`` is of floating-point numbers: numpy's own, or a narrow one."""
    # ml_dtypes' float8_e5m2 is of kind "f", too; its other types are not.
    return dtype.kind == "f" or is_narrow(dtype)


def largest(dtype: np.dtype[Any]) -> float:
    """Return the largest finite number of a float ``dtype``."""
    return float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]


def little_endian(array: NDArray) -> NDArray:
    """Return ``array`` with its numbers in little-endian order; copied only if they are not."""
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def rounded(values: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """Return floating-point ``values`` rounded **once** to the float ``dtype``, half to even.

    ml_dtypes' own casts from float64 go through float32 and so round twice: 1 + 2**-8 + 2**-40,
    which is nearer to the bfloat16 above, becomes 1. Numbers too large for the dtype become
    infinity, or NaN if it has none.
    """
    if not is_narrow(dtype):
        return values.astype(dtype)
    form = FloatFormat.of(dtype)
    wide = values.astype(np.float64)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        # Adding this constant rounds to a multiple of the least number: that of numbers which are
        # subnormal in the dtype. Larger ones are rounded by it at bits that they do not have.
        constant = 1.5 * 2.0 ** (52 + form.min_exp)
        tiny = np.abs(wide) < 2.0 ** (form.min_exp + form.precision)
        np.copyto(wide, np.copysign((wide + constant) - constant, wide), where=tiny)
        drop = 53 - form.precision
        flat = wide.ravel(order="K")  # a view
        bits, finite = flat.view(np.int64), np.isfinite(flat)
        up = (bits >> drop) & 1
        up += (1 << (drop - 1)) - 1
        np.add(bits, up, out=bits, where=finite)
        np.bitwise_and(bits, -(1 << drop), out=bits, where=finite)
        # Exact from here on, but for numbers beyond the dtype's largest.
        return wide.astype(np.float32).astype(dtype)


def nearest(values: NDArray, dtype: np.dtype[Any]) -> NDArray:
    """Return real ``values`` as numbers of any real ``dtype``, each rounded once, half to even.

    Floats as by `rounded`. What an integer dtype cannot hold becomes the nearest that it can; a
    bool is whether the number is above a half. ``values`` themselves if they have the dtype.
    """
    if values.dtype == dtype:
        return values
    if is_float(dtype):
        return rounded(values, dtype)
    if not is_float(values.dtype):
        return values.astype(dtype)
    if dtype.kind == "b":
        return np.asarray(values > 0.5)
    limits = np.iinfo(dtype)
    whole = np.rint(values.astype(np.float64, copy=False))
    return np.asarray(np.clip(whole, limits.min, limits.max)).astype(dtype)


def first_not_finite(values: NDArray) -> int | None:
    """Return the position, in memory order, of the first NaN or infinity; None if there is none."""
    if not (is_float(values.dtype) or values.dtype.kind == "c"):
        return None
    flat = values.reshape(-1, order="A")
    for start in range(0, flat.size, _BLOCK):
        finite = _finite(flat[start : start + _BLOCK])
        if not finite.all():
            return start + int(finite.argmin())
    return None


def _finite(values: NDArray) -> NDArray:
    if is_narrow(values.dtype):
        # Ten times as fast as ml_dtypes' isfinite, which is not vectorized.
        values = values.astype(np.float32)
    finite: NDArray = np.isfinite(values)
    return finite
