"""The exact sum of weighted numbers, for a block of a tensor: a few int64 arrays and a dictionary.

Theory of operation
-------------------
The sum of each element is an integer times a power of two, and is kept as such; nothing is ever
rounded, so the order of additions cannot matter.

A **limb** is an int64 array and an exponent ``e``: it stands for ``array * 2**e``. A number x joins
it by floating-point addition of the constant ``c = 1.5 * 2**(52 + e)``: while ``|x| <= 2**(51+e)``,
the sum ``x + c`` lies between ``2**(52+e)`` and ``2**(53+e)``, where float64 has steps of
``2**e``. So the hardware rounds x to a multiple ``n * 2**e``, and the bit pattern of the sum, read
as an integer, is that of c plus n. Multiplying by the weight and adding are then integer operations
modulo 2**64, which are associative; the patterns of c gather in ``offset``, one number for all
elements, and are taken off in the end. (The constant is that of Demmel and Nguyen's pre-rounding,
IEEE ARITH 2013; the integers that catch what it extracts hold ten bits more than a float64.)

**Exactness** rests on three things. (1) ``load`` bounds the magnitude of all elements of a limb;
before it could reach 2**62, the limb's higher bits are carried to a limb above. (2) When the
numbers are multiples of ``2**e``, nothing is lost by the rounding; the bounds of the piece say so.
(3) Otherwise the remainder ``x - n * 2**e``, which float64 holds exactly, is added in its turn: to
a dictionary of Python integers, the **spill**, when few elements have one, and else to a finer
limb.

The exponent of the first limb is taken from the first numbers, 42 bits below the largest: there is
room for numbers 512 times as large, or for a total weight of a million, before a second limb is
made, and of normally distributed float32 numbers one in 80,000 has bits below it. This choice, like
everything in the representation, may depend on the order of arrival. The value does not, and the
mean is a function of the value alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation.pieces import BLOCK, MinusZeros, Piece, Scratch, measured
from flmq.aggregation.space import LimbSpace
from flmq.aggregation.zeros import NegativeZeros
from flmq.common.dtypes import FloatFormat, is_float

__all__ = ["DIGIT", "FULL", "BlockSum", "Limb", "carry", "empty_sums"]

DIGIT = 32  # bits of a digit
FULL = 1 << 62  # the load of a limb stays below
_MASK = (1 << DIGIT) - 1
_WINDOW = 51  # bits that the addition of the constant yields
_CAPACITY = 61  # bits that one addition may bring to a limb
_WIDTH = 42  # bits that a new limb has for the numbers it is made for
_ROOM = 4  # bits of room that a new limb has at least, for weights to come
_USEFUL = 20  # bits that a limb must take of inexact numbers, or a better one is made
_WEIGHT_DIGIT = 24  # bits of a weight multiplied at a time
_FINEST = -1074  # below it, the constant would not be a normal number
_MANY = 8  # limbs; further ones are made at multiples of a digit only, so are bounded in number
_SPILLED = 64  # one element in this many may be in the spill


@dataclass(slots=True)
class Limb:
    """Stand for ``(array - offset) * 2**exponent`` modulo 2**64; ``load`` bounds every element."""

    array: NDArray[np.int64]
    offset: int = 0
    load: int = 0

    def settle(self) -> NDArray[np.int64]:
        """Subtract the offset from the array in place, and return the array."""
        if self.offset:
            np.subtract(self.array, _signed(self.offset), out=self.array)
            self.offset = 0
        return self.array

    def at(self, select: Any = slice(None)) -> NDArray[np.int64]:
        """Return a copy of the selected elements without the offset; the limb is not changed."""
        chosen: NDArray[np.int64] = self.array[select] - np.int64(_signed(self.offset))
        return chosen


def empty_sums(sizes: Sequence[int], dtypes: Sequence[np.dtype[Any]]) -> list[list[BlockSum]]:
    """Return zero sums, block by block, for tensors of these sizes (in elements) and dtypes."""
    space = LimbSpace(sum(sizes))
    return [
        [BlockSum(min(BLOCK, size - start), _unit(dtype), space) for start in range(0, size, BLOCK)]
        for size, dtype in zip(sizes, dtypes, strict=True)
    ]


def _unit(dtype: np.dtype[Any]) -> int:
    return FloatFormat.of(dtype).min_exp if is_float(dtype) else 0


def carry(rows: NDArray[np.int64]) -> None:
    """Carry in place until every row but the last (the highest) is in the range of a digit."""
    for row in range(len(rows) - 1):
        rows[row + 1] += rows[row] >> DIGIT
        rows[row] &= _MASK


class BlockSum:
    """Exact weighted sums of ``size`` elements, at most one block.

    ``unit`` is the exponent of the dtype's smallest positive number. Laws: ``add`` is commutative;
    ``add`` with the negated weight is its inverse; ``merge`` gives the sum of both, so it is
    associative and commutative in the value.
    """

    __slots__ = ("_space", "limbs", "negative_zeros", "size", "spill", "unit")

    def __init__(self, size: int, unit: int, space: LimbSpace) -> None:
        """Start at zero, which needs no memory; allocate from ``space`` on demand."""
        self._space = space
        self.size = size
        self.unit = unit
        self.limbs: dict[int, Limb] = {}
        self.spill: dict[int, int] = {}  # position -> multiple of 2**unit
        self.negative_zeros: NegativeZeros | None = None

    def add(self, start: int, piece: Piece, weight: int, scratch: Scratch) -> None:
        """Add ``weight`` (any integer) times the piece to the elements from ``start`` on."""
        sign = -1 if weight < 0 else 1
        left = abs(weight)
        part = piece
        while left:
            digit = left & ((1 << _WEIGHT_DIGIT) - 1)
            if digit:
                self._add_digit(start, part, sign * digit, scratch)
            left >>= _WEIGHT_DIGIT
            if left:  # the scratch that held the magnitudes may have been overwritten by now
                part = replace(part, shift=part.shift + _WEIGHT_DIGIT, magnitudes=None)

    def add_minus_zeros(self, start: int, zeros: MinusZeros, weight: int) -> None:
        """Count ``weight`` (any integer) for the zeros that are negative, from ``start`` on."""
        if self.negative_zeros is None:
            self.negative_zeros = NegativeZeros(self.size)
        self.negative_zeros.add(start + zeros.positions, weight)

    def merge(self, other: BlockSum) -> None:
        """Add another block's sums without changing it. It may be this same block."""
        if other.negative_zeros is not None:
            weights = other.negative_zeros.weights
            if self.negative_zeros is None:
                self.negative_zeros = NegativeZeros(self.size)
            self.negative_zeros.add_all(weights)
        addends = [(exponent, limb.at(), limb.load) for exponent, limb in other.limbs.items()]
        for exponent, array, load in addends:
            self._absorb(exponent, array, load)
        for position, amount in list(other.spill.items()):
            self._spill_one(position, amount)

    def at(self, position: int) -> tuple[int, int]:
        """Return one element's exact sum: an integer and the exponent of two that scales it."""
        lowest = min([self.unit, *self.limbs])
        total = self.spill.get(position, 0) << (self.unit - lowest)
        for exponent, limb in self.limbs.items():
            total += int(limb.at([position])[0]) << (exponent - lowest)
        return total, lowest

    def digits(self, select: Any = slice(None)) -> tuple[NDArray[np.int64], int]:
        """Return the limbs' sum of the selected elements (no spill), and its lowest exponent.

        Rows of digits in base 2**32, the lowest first, each in [0, 2**32) except the last, which
        holds the carry and the sign. The lowest exponent is a multiple of 32.
        """
        low = min(self.limbs) // DIGIT
        high = max(self.limbs) // DIGIT
        chosen = {exponent: limb.at(select) for exponent, limb in self.limbs.items()}
        width = next(iter(chosen.values())).size
        rows = np.zeros((high - low + 4, width), dtype=np.int64)
        for exponent, array in chosen.items():
            place, shift = divmod(exponent, DIGIT)
            lower, upper = _split(array, shift)
            row = place - low
            rows[row] += lower
            rows[row + 1] += upper & _MASK
            rows[row + 2] += upper >> DIGIT
        carry(rows)
        return rows, low * DIGIT

    # -- one digit of a weight -------------------------------------------------------------------

    def _add_digit(self, start: int, piece: Piece, weight: int, scratch: Scratch) -> None:
        """Add ``weight`` (below 2**24) times the piece, limb by limb, until nothing is left."""
        rest: Piece | None = piece
        while rest is not None:
            exponent = self._exponent_for(rest, weight)
            if exponent - rest.shift > rest.bottom and not rest.is_measured:
                rest = measured(rest, scratch)
                if rest is None:
                    return
                exponent = self._exponent_for(rest, weight)
            rest = self._add_to_limb(start, rest, weight, exponent, scratch)

    def _add_to_limb(
        self, start: int, piece: Piece, weight: int, exponent: int, scratch: Scratch
    ) -> Piece | None:
        """Add what the limb of that exponent can hold of the piece; return the rest, or None."""
        grid = exponent - piece.shift  # in units of the piece's values
        rounded = scratch.floats(0, piece.values.size)
        np.copyto(rounded, piece.values)  # then in place: faster than a sum that converts
        np.add(rounded, 1.5 * 2.0 ** (52 + grid), out=rounded)
        limb = self._limb(exponent, abs(weight) << max(piece.top - grid, 0))
        left = self._remainder(start, piece, grid, weight, scratch)
        self._take(limb, start, rounded.view(np.int64), _pattern(grid), weight)
        return left

    def _exponent_for(self, piece: Piece, weight: int) -> int:
        """Return the exponent of the limb to add to: an existing one if it suits, else a new one.

        It is either at most the piece's bottom, so that nothing remains, or at least three below
        its top, so that the remainder is smaller: the additions terminate.
        """
        top = piece.top + piece.shift
        weight_bits = abs(weight).bit_length()
        finest = max(self.unit, _FINEST + piece.shift)  # no number has bits below it
        least = max(top - min(_WINDOW, _CAPACITY - weight_bits), finest)
        there = min((e for e in self.limbs if e >= least), default=None)
        if there is not None and (there <= piece.bottom + piece.shift or top - there >= _USEFUL):
            return there
        wanted = max(top - min(_WIDTH, _CAPACITY - _ROOM - weight_bits), finest)
        if len(self.limbs) >= _MANY and wanted > finest:
            wanted = -(-wanted // DIGIT) * DIGIT
        return wanted

    def _limb(self, exponent: int, load: int) -> Limb:
        """Return the limb of that exponent, created if needed, and count ``load`` on it."""
        limb = self.limbs.get(exponent)
        if limb is None:
            limb = self.limbs[exponent] = Limb(self._space.zeros(self.size))
        elif limb.load + load >= FULL:
            self._carry_up(exponent, limb)
        limb.load += load
        return limb

    def _carry_up(self, exponent: int, limb: Limb) -> None:
        """Move the higher bits of a limb into a limb above, always at a multiple of a digit."""
        array = limb.settle()
        bits = _carried(exponent)
        upper = self._limb(exponent + bits, (limb.load >> bits) + 1)
        np.add(upper.array, array >> bits, out=upper.array)
        array &= (1 << bits) - 1
        limb.load = 1 << bits

    def _take(
        self, limb: Limb, start: int, patterns: NDArray[np.int64], constant: int, weight: int
    ) -> None:
        """Add ``weight * (patterns - constant)`` to the limb. Overwrites ``patterns``."""
        if patterns.size == self.size:
            limb.offset += constant * weight
        else:  # the offset counts for the whole block: take the constant off these few at once
            np.subtract(patterns, constant, out=patterns)
        np.multiply(patterns, weight, out=patterns)
        target = limb.array[start : start + patterns.size]
        np.add(target, patterns, out=target)

    # -- what a limb does not hold ---------------------------------------------------------------

    def _remainder(
        self, start: int, piece: Piece, grid: int, weight: int, scratch: Scratch
    ) -> Piece | None:
        """Return what rounding to ``2**grid`` leaves of the piece; None if nothing or spilled.

        Expects the rounded values, plus the constant, in the scratch.
        """
        if grid <= piece.bottom:
            return None
        constant = 1.5 * 2.0 ** (52 + grid)
        rounded = scratch.floats(0, piece.values.size)
        finer = piece.finer_than(grid)
        if finer is not None and self._may_spill(int(np.count_nonzero(finer))):
            where = np.flatnonzero(finer)
            parts = piece.values[where].astype(np.float64) - (rounded[where] - constant)
            self._spill_parts(start, where, parts, weight << piece.shift)
            return None
        multiples = scratch.floats(1, piece.values.size)
        parts = scratch.floats(2, piece.values.size)
        np.subtract(rounded, constant, out=multiples)
        np.subtract(piece.values, multiples, out=parts, dtype=np.float64)
        # Numbers may have fewer bits than their dtype.
        return Piece(parts, grid, piece.bottom, piece.shift) if parts.any() else None

    def _may_spill(self, count: int) -> bool:
        return len(self.spill) + count <= self.size // _SPILLED

    def _spill_parts(
        self, start: int, where: NDArray[np.intp], parts: NDArray[np.float64], weight: int
    ) -> None:
        for position, part in zip(where.tolist(), parts.tolist(), strict=True):
            numerator, denominator = part.as_integer_ratio()
            # The denominator is a power of two of at most -unit bits.
            amount = numerator << (1 - denominator.bit_length() - self.unit)
            self._spill_one(start + position, weight * amount)

    def _spill_one(self, position: int, amount: int) -> None:
        total = self.spill.pop(position, 0) + amount
        if total:
            self.spill[position] = total

    # -- merging ---------------------------------------------------------------------------------

    def _absorb(self, exponent: int, array: NDArray[np.int64], load: int) -> None:
        """Add ``array * 2**exponent``, of elements up to ``load``. May change ``array``."""
        if load >= 1 << _CAPACITY:
            bits = _carried(exponent)
            self._absorb(exponent, array & ((1 << bits) - 1), 1 << bits)
            self._absorb(exponent + bits, array >> bits, (load >> bits) + 1)
            return
        lower = max((e for e in self.limbs if e <= exponent), default=exponent)
        scaled = load << (exponent - lower)
        if lower in self.limbs and scaled < 1 << _CAPACITY:
            array <<= exponent - lower
            limb = self._limb(lower, scaled)
            np.add(limb.array, array, out=limb.array)
        elif len(self.limbs) < _MANY:
            self.limbs[exponent] = Limb(array, load=load)
            self._fold_into(exponent)
        else:
            place, shift = divmod(exponent, DIGIT)
            parts = _split(array, shift)
            for digit, part, bound in zip((0, 1), parts, (DIGIT, _CAPACITY), strict=True):
                limb = self._limb((place + digit) * DIGIT, (1 << bound) + (1 << DIGIT))
                np.add(limb.array, part, out=limb.array)

    def _fold_into(self, exponent: int) -> None:
        """Merge the next higher limb into the one of that exponent, if there is room."""
        higher = min((e for e in self.limbs if e > exponent), default=None)
        if higher is None:
            return
        scaled = self.limbs[higher].load << (higher - exponent)
        if scaled < 1 << _CAPACITY:
            array = self.limbs.pop(higher).settle()
            limb = self._limb(exponent, scaled)
            np.add(limb.array, array << (higher - exponent), out=limb.array)


def _carried(exponent: int) -> int:
    """Return how many low bits stay when a limb is carried: 17 to 48, up to a multiple of 32."""
    return DIGIT // 2 + 1 + (-exponent - DIGIT // 2 - 1) % DIGIT


def _split(array: NDArray[np.int64], shift: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split ``array * 2**shift`` (shift < 32) into a digit and the rest (< 2**62 + 2**32)."""
    low = (array & _MASK) << shift
    return low & _MASK, (low >> DIGIT) + ((array >> DIGIT) << shift)


def _pattern(grid: int) -> int:
    """Return the bits of ``1.5 * 2**(52 + grid)`` as float64, read as an integer."""
    return ((1023 + 52 + grid) << 52) | (1 << 51)


def _signed(word: int) -> int:
    """Convert a number modulo 2**64 to the value that int64 gives it."""
    word &= (1 << 64) - 1
    return word - (1 << 64) if word >> 63 else word
