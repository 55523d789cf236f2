"""Encode float32 and float64 in fewer bits, with a stated error bound.

Below, d is a number's difference from its base (the number itself if there is no base), y the
decoded number, and u the unit roundoff of the tensor's dtype: 2**-24 for float32 and 2**-53 for
float64. Every decoded number is rounded once more when d is added to the base: hence the u |y| in
the bounds. Rounding is to nearest, half to even, never random: the same numbers give the same bits,
whenever and wherever.

Tensors with NaN, infinity, or a magnitude of a quarter of the dtype's largest number or more (or
whose base has) are not accepted: they are encoded losslessly. So nothing overflows, then or later.
Nor are tensors of one or two numbers, which would not become shorter.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from typing import Any

import numpy as np

from flmq.common.errors import MalformedMessage
from flmq.common.typing import NDArray
from flmq.wire.codecs.byte_shuffle import shuffle_bytes, unshuffle_bytes
from flmq.wire.codecs.scheme import Scheme

__all__ = ["BFloat16", "Float16", "Int8"]

# Numbers that share a scale. On updates of an MLP, int8's ratio and the error's norm relative to
# the update's: 64: 4.9, 0.8 %; 256: 5.3, 1.0 %; 1024: 6.0, 1.3 %; 4096: 6.8, 1.8 %; all: 12, 8 %.
_GROUP = 1024
_EXPONENT = np.dtype("<i2")


class _Lossy(Scheme):
    """Common base of the lossy schemes, which work on floating-point differences."""

    def accepts(self, words: NDArray, base: NDArray | None) -> bool:
        """Return whether it saves bytes, and all is finite and too small to overflow in any sum."""
        if self.packed_bytes(len(words), words.dtype.itemsize) >= words.nbytes:
            return False
        return all(_is_tame(_floats(part)) for part in (words, base) if part is not None)


class _Half(_Lossy):
    """16 bits per number: scaled by a power of two, which costs no accuracy, and rounded."""

    def packed_bytes(self, count: int, width: int) -> int:
        """Return the size: two bytes per number, and the exponent of the scale."""
        return 2 * count + _EXPONENT.itemsize

    def pack(self, words: NDArray, base: NDArray | None) -> NDArray:
        """Return the byte planes of the rounded numbers, and the exponent."""
        difference = _difference(words, base)
        exponent = _scale_exponent(difference)
        difference *= _power(exponent, difference.dtype)
        tail = np.array([exponent], _EXPONENT).view(np.uint8)
        return np.concatenate((shuffle_bytes(self._round(difference)), tail))

    def unpack(self, packed: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
        """Return the scaled-back numbers added to the base."""
        floats = _float_dtype(dtype)
        exponent = int(packed[-_EXPONENT.itemsize :].view(_EXPONENT)[0])
        if abs(exponent) > _max_exponent(floats):
            raise MalformedMessage(f"a scale of 2**{exponent} does not occur")
        halves = unshuffle_bytes(packed[: -_EXPONENT.itemsize], np.dtype(np.uint16))
        difference = self._widen(halves).astype(floats)
        difference *= _power(-exponent, floats)
        return _sum(difference, base, dtype)

    @abstractmethod
    def _round(self, scaled: NDArray) -> NDArray:
        """Round to the nearest 16-bit numbers, as uint16."""

    @abstractmethod
    def _widen(self, halves: NDArray) -> NDArray:
        """Return the numbers that `_round` chose, in a dtype that holds them exactly."""


class Float16(_Half):
    """IEEE binary16 of the scaled difference.

    |error| <= 2**-11 |d| + 2**-39 D + u |y| + t for each number, where D is the largest |d| of
    its block (131072 numbers) and t the smallest normal number of the dtype: three significant
    decimal digits of every difference, however small the update is.
    """

    code = 1

    def _round(self, scaled: NDArray) -> NDArray:
        return scaled.astype(np.float16).view(np.uint16)

    def _widen(self, halves: NDArray) -> NDArray:
        return halves.view(np.float16)


class BFloat16(_Half):
    """The upper half of an IEEE binary32 of the scaled difference.

    |error| <= 2**-8 |d| + 2**-39 D + u |y| + t, in the notation of `Float16`: two significant
    decimal digits. It is less accurate than `Float16` at the same length, but compresses better.
    """

    code = 2

    def _round(self, scaled: NDArray) -> NDArray:
        bits = scaled.astype(np.float32, copy=False).view(np.uint32)
        last = (bits >> np.uint32(16)) & np.uint32(1)
        return ((bits + (np.uint32(0x7FFF) + last)) >> np.uint32(16)).astype(np.uint16)

    def _widen(self, halves: NDArray) -> NDArray:
        return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


class Int8(_Lossy):
    """Multiples -127 ... 127 of a step shared by 1024 numbers: their largest |d| over 127.

    |error| <= G / 253 + u |y| + t for each number, where G is the largest |d| of its group of 1024
    (neighbours in memory) and t the smallest normal number of the dtype. Numbers whose |d| is below
    G / 254 become the base's.
    """

    code = 3

    def packed_bytes(self, count: int, width: int) -> int:
        """Return the size: one byte per number, and one step per group."""
        return count + width * _groups(count)

    def pack(self, words: NDArray, base: NDArray | None) -> NDArray:
        """Return the multiples, then the steps."""
        difference = _difference(words, base)
        rows = np.zeros((_groups(len(words)), _GROUP), difference.dtype)
        rows.reshape(-1)[: len(words)] = difference
        steps = np.abs(rows).max(axis=1) / difference.dtype.type(127)
        # At least the smallest normal number: a subnormal step would be inexact, or zero.
        steps = np.maximum(steps, np.finfo(steps.dtype).tiny)
        multiples = np.rint(rows / steps[:, np.newaxis]).astype(np.int8)
        tail = steps.astype(steps.dtype.newbyteorder("<"), copy=False).view(np.uint8)
        return np.concatenate((multiples.reshape(-1)[: len(words)].view(np.uint8), tail))

    def unpack(self, packed: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
        """Return multiples times steps, added to the base."""
        floats = _float_dtype(dtype)
        count = _count(len(packed), floats.itemsize)
        steps = packed[count:].view(floats.newbyteorder("<")).astype(floats)
        if not (np.isfinite(steps).all() and (steps > 0).all()):
            raise MalformedMessage("a step that is not positive and finite does not occur")
        rows = np.zeros((len(steps), _GROUP), floats)
        rows.reshape(-1)[:count] = packed[:count].view(np.int8)
        rows *= steps[:, np.newaxis]
        return _sum(rows.reshape(-1)[:count], base, dtype)


def _is_tame(numbers: NDArray) -> bool:
    """Return whether no number is NaN, infinite or near the end of the range."""
    limit = np.finfo(numbers.dtype).max / 4
    # False for NaN, which minimum and maximum propagate.
    return bool(numbers.max() < limit and numbers.min() > -limit)


def _float_dtype(words: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32 if words.itemsize == 4 else np.float64)


def _floats(words: NDArray) -> NDArray:
    """View the bits as floating-point numbers of the same byte order."""
    return words.view(_float_dtype(words.dtype).newbyteorder(words.dtype.byteorder))


def _difference(words: NDArray, base: NDArray | None) -> NDArray:
    """Return a new array of the numbers minus their base."""
    return _floats(words).copy() if base is None else _floats(words) - _floats(base)


def _sum(difference: NDArray, base: NDArray | None, dtype: np.dtype[Any]) -> NDArray:
    """Return the words of base plus difference."""
    return (difference if base is None else difference + _floats(base)).view(dtype)


def _scale_exponent(difference: NDArray) -> int:
    """Return k such that the largest magnitude times 2**k is in [2**14, 2**15), clamped."""
    peak = max(float(difference.max()), -float(difference.min()))
    return min(15 - math.frexp(peak)[1], _max_exponent(difference.dtype))


def _max_exponent(floats: np.dtype[Any]) -> int:
    """Return the largest k for which both 2**k and 2**-k are normal numbers."""
    return -int(np.finfo(floats).minexp)


def _power(exponent: int, floats: np.dtype[Any]) -> Any:
    """Return exactly 2**exponent as a scalar of ``floats``."""
    return floats.type(math.ldexp(1.0, exponent))


def _groups(count: int) -> int:
    return -(-count // _GROUP)


def _count(packed_bytes: int, width: int) -> int:
    """Return how many numbers ``Int8`` packs into ``packed_bytes``; inverse of `packed_bytes`."""
    return packed_bytes - width * -(-packed_bytes // (_GROUP + width))
