"""Seeing, before it is added, how large and how fine the numbers of a stretch of a tensor are.

A *piece* is a short one-dimensional array of numbers that float64 holds exactly, with two bounds
that cost a few cheap passes over its bit patterns: every number is below ``2**top`` in magnitude
and a multiple of ``2**bottom``. With them an accumulator knows beforehand which additions are
exact. Floats make one piece, narrow ones as float32; 64-bit integers, which float64 does not hold,
make two of 32 bits each; float64 numbers of astronomic size are scaled down, and ``shift`` says by
how much.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.common.dtypes import NARROW_FLOATS, FloatFormat, is_float, is_narrow
from flmq.common.errors import NonFiniteValues

__all__ = [
    "BLOCK",
    "ONE_MINUS_ZERO",
    "MinusZeros",
    "Piece",
    "Scratch",
    "measured",
    "pieces_of",
]

# Elements handled at a time. 32 Ki float64 are 256 KiB: a block of input, one of sums and the
# scratch fit a 1 MiB L2 cache, and Python's overhead per block is a few per cent.
BLOCK = 1 << 15

_HIGH = 900  # float64 numbers beyond 2**900 would overflow the rounding constants of the sums
_SPLIT = 400
_DOWN = 600
_NARROW = 51  # bits of a 64-bit integer that can be added in one piece


@dataclass(frozen=True, slots=True)
class _Layout:
    """Bit layout of a float format: ``fraction`` bits below the biased exponent."""

    unsigned: np.dtype[Any]
    fraction: int
    bias: int

    @property
    def infinite(self) -> int:
        """The bits of infinity shifted left by one (dropping the sign); NaN's are larger."""
        return (2 * self.bias + 1) << (self.fraction + 1)

    def top(self, shifted: int) -> int:
        """Return the exponent of the power of two above a number given as shifted bits.

        Tight for subnormal numbers too: too large a bound would promise progress to the sums that
        they do not make.
        """
        field = shifted >> (self.fraction + 1)
        if field:
            return field - self.bias + 1
        return (shifted >> 1).bit_length() + self.bottom(shifted)

    def bottom(self, shifted: int) -> int:
        """Return the exponent of the last place of a number given as shifted bits."""
        return max(shifted >> (self.fraction + 1), 1) - self.bias - self.fraction


_LAYOUTS = {
    np.dtype(np.float16): _Layout(np.dtype(np.uint16), 10, 15),
    NARROW_FLOATS["bfloat16"]: _Layout(np.dtype(np.uint16), 7, 127),
    np.dtype(np.float32): _Layout(np.dtype(np.uint32), 23, 127),
    np.dtype(np.float64): _Layout(np.dtype(np.uint64), 52, 1023),
}


class Scratch:
    """Work space for one block, so that adding allocates nothing. Not thread-safe."""

    __slots__ = ("_bits", "_floats", "_wide")

    def __init__(self) -> None:
        """Allocate about 1 MiB."""
        self._floats = np.empty((3, BLOCK), dtype=np.float64)
        self._bits = np.empty(BLOCK, dtype=np.uint64)
        self._wide = np.empty(BLOCK, dtype=np.float32)

    def floats(self, which: int, size: int) -> NDArray[np.float64]:
        """Return the float64 buffer number ``which`` (0, 1, 2), cut to ``size`` elements."""
        return self._floats[which, :size]

    def bits(self, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
        """Return the buffer for bit patterns as ``dtype``, cut to ``size`` elements."""
        return self._bits.view(dtype)[:size]

    def widened(self, values: NDArray[Any]) -> NDArray[np.float32]:
        """Return narrow floats as float32, which holds them exactly, in a buffer for them alone."""
        wide = self._wide[: values.size]
        np.copyto(wide, values)
        return wide


@dataclass(slots=True)  # not frozen, for the time that it takes to make one
class _Magnitudes:
    """The bits of floats without sign, shifted left by one: they order numbers by magnitude.

    If there are zeros among them (``zeros``), all are less by one, so that zero comes last. They
    live in the scratch, and are valid until the next piece is made.
    """

    bits: NDArray[Any]
    layout: _Layout
    zeros: bool
    largest: int
    """Shifted bits of the largest magnitude; 0 if all are zero."""
    smallest: int
    """Of the smallest that is not zero."""

    @classmethod
    def of(cls, bits: NDArray[Any], layout: _Layout, scratch: Scratch) -> _Magnitudes:
        """Measure floats of this layout, given as unsigned ``bits``.

        Raises:
            NonFiniteValues: NaN or infinity.
        """
        shifted = scratch.bits(layout.unsigned, bits.size)
        np.left_shift(bits, 1, out=shifted)
        largest, smallest = int(shifted.max()), int(shifted.min())
        if largest >= layout.infinite:
            raise NonFiniteValues("NaN or infinity")
        zeros = smallest == 0
        if zeros and largest:
            np.subtract(shifted, 1, out=shifted)  # zeros wrap round to the largest
            smallest = int(shifted.min()) + 1
        return cls(shifted, layout, zeros, largest, smallest)

    def below(self, exponent: int) -> NDArray[np.bool_]:
        """Return a mask of numbers that may have bits below ``2**exponent``."""
        layout = self.layout
        field = exponent + layout.bias + layout.fraction
        limit = min(field << (layout.fraction + 1), int(np.iinfo(layout.unsigned).max) + 1)
        most = layout.unsigned.type(max(limit - 1, 0))
        mask: NDArray[np.bool_] = self.bits < most if self.zeros else self.bits <= most
        return mask


@dataclass(slots=True)
class Piece:
    """Numbers ``values * 2**shift``, not all zero: ``|values| < 2**top``, multiples of 2**bottom.

    ``magnitudes`` (floats only) say how they are distributed between the two.
    """

    values: NDArray[Any]
    top: int
    bottom: int
    shift: int = 0
    magnitudes: _Magnitudes | None = None

    @property
    def is_measured(self) -> bool:
        """Whether the bounds are tight, or as tight as they can be made."""
        return self.magnitudes is not None or self.values.dtype.kind != "f"

    def finer_than(self, exponent: int) -> NDArray[np.bool_] | None:
        """Return a mask of numbers that may have bits below ``2**exponent``; None if unknown."""
        return None if self.magnitudes is None else self.magnitudes.below(exponent)


@dataclass(frozen=True, slots=True)
class MinusZeros:
    """Positions in a stretch at which there is -0.0. Their sum is that of any zeros."""

    positions: NDArray[np.intp]


ONE_MINUS_ZERO = MinusZeros(np.zeros(1, np.intp))


def pieces_of(values: NDArray[Any], scratch: Scratch) -> Iterator[Piece | MinusZeros]:
    """Yield the pieces whose sum is ``values``: contiguous, 1-d, at most ``BLOCK`` numbers.

    Yields no piece if all are zero. Use each before taking the next.

    Raises:
        NonFiniteValues: NaN or infinity among the values; raised before the first piece.
    """
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    if is_float(values.dtype):
        return _float_pieces(values, scratch)
    if values.dtype.itemsize == 8:
        return _wide_integer_pieces(values)
    return _integer_pieces(values, 0)


def _float_pieces(values: NDArray[Any], scratch: Scratch) -> Iterator[Piece | MinusZeros]:
    least = FloatFormat.of(values.dtype).min_exp
    wide: NDArray[Any] = scratch.widened(values) if is_narrow(values.dtype) else values
    measured_on = values if values.dtype in _LAYOUTS else wide
    magnitudes = _magnitudes_of(measured_on, scratch)
    if magnitudes.zeros:
        yield from _minus_zeros(measured_on)
    piece = _float_piece(wide, magnitudes, least)
    if piece is None:
        return
    if piece.top <= _HIGH:
        yield piece
        return
    # Scaling is exact: what is scaled is so large that its last place stays far from underflow.
    huge = np.abs(values) >= 2.0**_SPLIT
    for part, shift in (
        (np.where(huge, values, 0.0) * 2.0**-_DOWN, _DOWN),
        (np.where(huge, 0.0, values), 0),
    ):
        piece = _float_piece(part, _magnitudes_of(part, scratch), least, shift)
        if piece is not None:
            yield piece


def _magnitudes_of(values: NDArray[Any], scratch: Scratch) -> _Magnitudes:
    layout = _LAYOUTS[values.dtype]
    return _Magnitudes.of(values.view(layout.unsigned), layout, scratch)


def _minus_zeros(values: NDArray[Any]) -> Iterator[MinusZeros]:
    """Yield the positions of -0.0, if there is one: as a signed integer, the least of all."""
    bits = values.view(f"i{values.itemsize}")
    least = np.iinfo(bits.dtype).min
    if int(bits.min()) == least:
        yield MinusZeros(np.flatnonzero(bits == least))


def _float_piece(
    values: NDArray[Any], magnitudes: _Magnitudes, least: int, shift: int = 0
) -> Piece | None:
    """Return all ``values``, multiples of ``2**least``, as one piece; None if all are zero."""
    if magnitudes.largest == 0:
        return None
    layout = magnitudes.layout
    bottom = max(layout.bottom(magnitudes.smallest), least)
    return Piece(values, layout.top(magnitudes.largest), bottom, shift, magnitudes)


def measured(piece: Piece, scratch: Scratch) -> Piece | None:
    """Return the same piece of floats with tight bounds; None if all its numbers are zero."""
    values = piece.values
    least = FloatFormat.of(values.dtype).min_exp
    return _float_piece(values, _magnitudes_of(values, scratch), least, piece.shift)


def _integer_pieces(values: NDArray[Any], shift: int) -> Iterator[Piece]:
    """Yield integers and bools of at most 53 bits as pieces."""
    largest = max(abs(int(values.max())), abs(int(values.min())))
    if largest:
        yield Piece(values, largest.bit_length(), 0, shift)


def _wide_integer_pieces(values: NDArray[Any]) -> Iterator[Piece]:
    """Yield 64-bit integers as ``low + high * 2**32`` (high half signed) if they need 52 bits."""
    if int(values.min()) > -(1 << _NARROW) and int(values.max()) < 1 << _NARROW:
        yield from _integer_pieces(values, 0)
        return
    yield from _integer_pieces(np.bitwise_and(values, 0xFFFFFFFF), 0)
    yield from _integer_pieces(np.right_shift(values, 32), 32)
