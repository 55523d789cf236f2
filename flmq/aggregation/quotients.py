"""From exact sums to means: division by the total weight and one rounding, half to even.

Every mean is the number of its dtype nearest to ``sum / weight``. For floats of 32 bits or less, a
quotient in float64 with its error bound nearly always decides the rounding already. The others, and
all float64, are divided in integers: the first 94 bits of the sum by the weight, so that the
quotient has more bits than the dtype. What is cut off, of the sum or as a remainder, is remembered
in the quotient's last bit, which is set if anything non-zero follows ("sticky"); so one rounding of
the quotient is the rounding of the mean. What does not fit this scheme (sums partly in the spill,
weights beyond 2**37, subnormal float64) is rare and divided as Python integers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation.limbs import DIGIT, FULL, BlockSum, carry
from flmq.aggregation.rounding import round_to_float, round_to_int
from flmq.common.dtypes import FloatFormat, is_float, is_narrow, rounded

__all__ = ["write_means"]

_Where = slice | NDArray[np.intp]

_MASK = (1 << DIGIT) - 1
_DOUBT = 2.0**-47  # bounds the relative error of an estimate: fewer than sixty roundings
# Elements divided at a time: few enough that a dozen rows stay in the cache, and that the allocator
# reuses memory instead of mapping and clearing new pages.
_STRETCH = 1 << 13
# By size of the dtype, the longest weights for which a quotient has the dtype's bits and two more.
_WEIGHT_BITS = {1: 56, 2: 56, 4: 56, 8: 37}
_LONG = 512  # bits of a weight from which on estimates could overflow float64
_HEAD = 62  # bits of a sum divided first; a digit of 32 more may follow


def write_means(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    """Write ``block / weight`` to ``out`` (1-d, of the block's size), rounded to its dtype.

    ``weight`` must be positive. Zero is written as +0.0, or as -0.0 where all numbers were.
    """
    # An element whose sum is partly in the spill may overflow before it is written by hand.
    with np.errstate(over="ignore", under="ignore"):
        if not block.limbs:
            out[...] = 0
        elif weight.bit_length() > _LONG:
            _write_by_hand(block, weight, out, range(block.size))
        elif is_float(out.dtype):
            _write_floats(block, weight, out)
        else:
            _write_integers(block, weight, out)
    _write_by_hand(block, weight, out, block.spill)
    if is_float(out.dtype):
        _write_zeros(block, weight, out)


def _write_zeros(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    """Give zeros their signs: -0.0, from a negative mean that rounds to zero, becomes +0.0."""
    if is_narrow(out.dtype):
        bits = out.view(f"u{out.dtype.itemsize}")
        bits[bits == 1 << (8 * out.dtype.itemsize - 1)] = 0
    else:
        out += 0
    if block.negative_zeros is not None:
        out[block.negative_zeros.fill(weight)] = -0.0


def _write_by_hand(
    block: BlockSum, weight: int, out: NDArray[Any], positions: Iterable[int]
) -> None:
    """Write the means at ``positions`` with Python integers."""
    form = FloatFormat.of(out.dtype) if is_float(out.dtype) else None
    least, most = _limits(out.dtype)
    for position in positions:
        total, exponent = block.at(position)
        numerator = total << max(exponent, 0)
        denominator = weight << max(-exponent, 0)
        if form is None:
            # No mean is out of range, but for that of a sum that was forged.
            out[position] = min(max(round_to_int(numerator, denominator), least), most)
        else:
            out[position] = round_to_float(numerator, denominator, form)


def _limits(dtype: np.dtype[Any]) -> tuple[int, int]:
    """Return the least and the largest integer of a dtype; of floats, which have none, zeros."""
    if dtype.kind not in "iu":
        return 0, int(dtype.kind == "b")
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def _write_integers(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    """Write means rounded to the nearest integer, half to even."""
    ((exponent, limb), *others) = block.limbs.items()
    if others or limb.load << exponent >= 1 << 62 or weight >= 1 << 62:
        _write_by_hand(block, weight, out, range(block.size))
        return
    whole, remainder = np.divmod(limb.at() << exponent, weight)
    remainder <<= 1
    whole += (remainder > weight) | ((remainder == weight) & (whole & 1 != 0))
    out[...] = whole.astype(out.dtype)


def _write_floats(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    """Write means of a float type: float64 by integer division, others only where in doubt."""
    if out.dtype.itemsize == 8:
        doubtful = np.arange(out.size)
        parts: list[_Where] = list(_stretches(out.size))
    else:
        doubtful = _write_estimates(block, weight, out)
        parts = [doubtful[stretch] for stretch in _stretches(doubtful.size)]
    if weight.bit_length() > _WEIGHT_BITS[out.dtype.itemsize]:
        _write_by_hand(block, weight, out, doubtful)
        return
    for part in parts:
        _write_divided(block, weight, out, part)


def _stretches(size: int) -> Iterator[slice]:
    return (slice(start, min(start + _STRETCH, size)) for start in range(0, size, _STRETCH))


# -- floats of 32 bits or less: estimates ---------------------------------------------------------


def _write_estimates(block: BlockSum, weight: int, out: NDArray[Any]) -> NDArray[np.intp]:
    """Write means of a float type of at most 24 bits; return the positions that are in doubt."""
    doubtful = np.empty(out.size, dtype=np.bool_)
    # Of narrow floats, whose comparisons are slow, the bits are compared: zeros have one sign here.
    bits = out.view(f"u{out.dtype.itemsize}") if is_narrow(out.dtype) else out
    for stretch in _stretches(out.size):
        estimate = _estimate(block, weight, stretch)
        below = rounded(estimate * (1 - _DOUBT), out.dtype)
        estimate *= 1 + _DOUBT
        if is_narrow(out.dtype):
            out[stretch] = rounded(estimate, out.dtype)
        else:
            np.copyto(out[stretch], estimate, casting="same_kind")
        # Rounding is monotonic: where both ends of the interval round alike, so does the mean.
        np.not_equal(bits[stretch], below.view(bits.dtype), out=doubtful[stretch])
    return np.flatnonzero(doubtful)


def _estimate(block: BlockSum, weight: int, where: slice) -> NDArray[np.float64]:
    """Return the quotients as float64 with a relative error below ``_DOUBT``."""
    if len(block.limbs) == 1:
        ((exponent, limb),) = block.limbs.items()
        estimate: NDArray[np.float64] = limb.settle()[where] / float(weight)
        estimate *= 2.0**exponent
        return estimate
    # Of magnitudes, from the top: with nothing to cancel, the errors of the sums stay relative.
    if _is_pair(block):
        pair = _Pair.of(block, where)
        estimate = pair.high.astype(np.float64)
        estimate *= 2.0**pair.gap
        estimate += pair.low
        estimate *= 2.0**pair.exponent / weight
        return np.where(pair.negative, -estimate, estimate)
    rows, exponent, sign = _signed_digits(block, where)
    estimate = rows[-1].astype(np.float64)
    for row in rows[-2::-1]:
        estimate *= 2.0**DIGIT
        estimate += row
    return np.ldexp(estimate / float(weight), exponent) * sign


# -- division in integers -------------------------------------------------------------------------


def _write_divided(block: BlockSum, weight: int, out: NDArray[Any], where: _Where) -> None:
    """Write the means selected by ``where``, of a float type, by integer division."""
    if len(block.limbs) == 1:
        lead = _lead_of_limb(block, where)
    elif _is_pair(block):
        lead = _lead_of_pair(block, where)
    else:
        lead = _lead_of_digits(block, where)
    _write_quotients(block, weight, out, where, lead)


def _write_quotients(
    block: BlockSum, weight: int, out: NDArray[Any], where: _Where, lead: _Lead
) -> None:
    quotient, exponent = _divide(lead, weight)
    if out.dtype.itemsize == 8:
        means = np.ldexp(quotient.astype(np.float64), exponent)
        # A quotient has 55 bits or more: below this, ldexp has rounded a second time.
        tiny = (means < 2.0**-1021) & (quotient != 0)
    else:
        # The leading 53 bits, the last of them sticky, are exact in float64 and then round once.
        quotient = (quotient >> 10) | (quotient & 0x3FF != 0)
        means = np.ldexp(quotient.astype(np.float64), exponent + 10)
        tiny = None
    means = np.where(lead.negative, -means, means)
    out[where] = rounded(means, out.dtype) if is_narrow(out.dtype) else means
    if tiny is not None and tiny.any():
        _write_by_hand(block, weight, out, np.arange(out.size)[where][tiny])


@dataclass(frozen=True, slots=True)
class _Lead:
    """Leading bits of sums: ``(head + following / 2**32) * 2**exponent``, rounded down.

    ``head`` has 61 or 62 bits (0 if the sum is zero), ``following`` 32, or is None if zero for all;
    ``inexact``, if not None, marks the sums that were rounded down.
    """

    head: NDArray[np.int64]
    exponent: NDArray[np.int64]
    negative: NDArray[np.bool_]
    following: NDArray[np.int64] | None = None
    inexact: NDArray[np.bool_] | None = None


def _lead_of_limb(block: BlockSum, where: _Where) -> _Lead:
    """Return the leading bits of sums in one limb: all bits, shifted left."""
    ((exponent, limb),) = block.limbs.items()
    sums = limb.at(where)
    magnitude = np.abs(sums)
    places = _free_places(magnitude)
    return _Lead(magnitude << places, exponent - places, sums < 0)


def _free_places(magnitude: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return by how many bits each number can be shifted within 62 bits, sometimes one too few.

    The logarithm is taken in float64, which may round up.
    """
    bits = np.frexp(magnitude.astype(np.float64))[1].astype(np.int64)
    return np.maximum(_HEAD - bits, 0)


@dataclass(frozen=True, slots=True)
class _Pair:
    """Magnitudes ``(high * 2**gap + low) * 2**exponent``, 0 <= low < 2**gap, and their signs."""

    high: NDArray[np.int64]
    low: NDArray[np.int64]
    negative: NDArray[np.bool_]
    gap: int
    exponent: int

    @classmethod
    def of(cls, block: BlockSum, where: _Where) -> _Pair:
        """Return the selected sums of a block of two limbs that are close together."""
        (exponent, lower), (above, upper) = sorted(block.limbs.items())
        gap = above - exponent
        mask = (1 << gap) - 1
        low, high = lower.at(where), upper.at(where)
        high += low >> gap
        low &= mask
        sign = high >> 63  # 0 or -1; what follows negates both together where it is -1
        low ^= sign
        low -= sign
        low &= mask
        high ^= sign
        high += sign & (low == 0)
        return cls(high, low, sign < 0, gap, exponent)


def _is_pair(block: BlockSum) -> bool:
    """Return whether there are two limbs that fit one number with a high part of 62 bits."""
    if len(block.limbs) != 2:
        return False
    (exponent, lower), (above, upper) = sorted(block.limbs.items())
    gap = above - exponent
    return gap < _HEAD and upper.load + (lower.load >> gap) + 1 < FULL


def _lead_of_pair(block: BlockSum, where: _Where) -> _Lead:
    """Return the leading bits of sums in two limbs."""
    pair = _Pair.of(block, where)
    free = _free_places(pair.high)
    places = np.minimum(free, pair.gap)
    left = pair.gap - places  # bits of the lower limb that do not fit
    head = (pair.high << places) | (pair.low >> left)
    rest = (pair.low & ((1 << left) - 1)) << (_HEAD - left)
    # Where all of the lower limb fits, the upper being almost empty, there may be places still.
    more = np.where(free > pair.gap, _free_places(head), 0)
    return _Lead(
        head=head << more,
        exponent=pair.exponent + left - more,
        negative=pair.negative,
        following=rest >> (_HEAD - DIGIT),
        inexact=rest & ((1 << (_HEAD - DIGIT)) - 1) != 0,
    )


def _lead_of_digits(block: BlockSum, where: _Where) -> _Lead:
    """Return the leading bits of sums in several limbs: those of the first four digits."""
    rows, exponent, sign = _signed_digits(block, where)
    count, width = rows.shape
    padded = np.concatenate((np.zeros((3, width), dtype=np.int64), rows))
    first = np.full(width, 3)
    for place in range(4, count + 3):
        np.copyto(first, place, where=padded[place] != 0)
    flat = padded.reshape(-1)
    index = first * width + np.arange(width)
    digits = [flat[index - below * width] for below in range(4)]
    # Shifted together so that the first digit has all its 32 bits.
    places = DIGIT - np.frexp(digits[0].astype(np.float64))[1].astype(np.int64)
    full = [
        ((high << places) & _MASK) | (low >> (DIGIT - places)) for high, low in pairwise(digits)
    ]
    last = (digits[3] << places) & _MASK
    inexact = ((full[2] & 3) | last) != 0
    for place in range(3, int(first.max()) - 3):
        inexact |= (padded[place] != 0) & (first - 3 > place)
    return _Lead(
        head=(full[0] << 30) | (full[1] >> 2),
        exponent=exponent + (first - 4) * DIGIT + 2 - places,
        negative=sign < 0,
        following=((full[1] & 3) << 30) | (full[2] >> 2),
        inexact=inexact,
    )


def _signed_digits(
    block: BlockSum, select: _Where
) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """Return the digits (>= 0) of the selected magnitudes, the lowest exponent, and the signs."""
    rows, exponent = block.digits(select)
    sign = np.where(rows[-1] < 0, -1, 1)
    if (sign < 0).any():
        rows *= sign
        carry(rows)
    return rows, exponent, sign


def _divide(lead: _Lead, weight: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return sticky quotients of 60 bits or more (fewer for weights over 32 bits) and exponents."""
    bits = weight.bit_length()
    quotient, remainder = _divmod(lead.head, weight)
    missing = min(bits, DIGIT)  # as many bits as the division has taken away, if there are
    taken = 0
    while taken < missing:
        step = min(63 - bits, missing - taken)
        taken += step
        remainder <<= step
        if lead.following is not None:
            remainder |= (lead.following >> (DIGIT - taken)) & ((1 << step) - 1)
        part, remainder = _divmod(remainder, weight)
        quotient = (quotient << step) | part
    inexact = remainder != 0
    if lead.following is not None:
        inexact |= lead.following & (_MASK >> missing) != 0
    if lead.inexact is not None:
        inexact |= lead.inexact
    return quotient | inexact, lead.exponent - missing


def _divmod(
    dividend: NDArray[np.int64], divisor: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return quotient and remainder of numbers >= 0; unsigned, for which numpy divides fast."""
    quotient = (dividend.view(np.uint64) // np.uint64(divisor)).view(np.int64)
    return quotient, dividend - quotient * divisor
