"""From exact sums to means: division by the total weight and one rounding, half to even.

Every mean is the number of its dtype nearest to ``sum / weight``. Where a quotient in float64 with
its error bound already decides the rounding (nearly always for float32), it is taken. The others,
ties among them, are divided by hand, digit by digit in base 2**32, and rounded with the remainder
known. Single elements that do not fit either go through Python's integers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.aggregation.limbs import DIGIT, BlockSum, carry
from flmq.aggregation.rounding import FloatFormat, round_to_float, round_to_int

__all__ = ["write_means"]

_MASK = (1 << DIGIT) - 1
_DOUBT = 2.0**-48  # bounds the relative error of an estimate: at most twenty roundings
_MANTISSA = 62  # bits of a quotient kept for rounding, the last of them sticky
_WEIGHT_BITS = 62  # remainders of larger weights do not fit int64


def write_means(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    """Write ``block / weight`` to ``out``, 1-d of the block's size, rounded to its dtype.

    ``weight > 0``. Zero is written as +0.0.
    """
    # An element whose sum is partly in the spill may overflow before it is written by hand.
    with np.errstate(over="ignore", under="ignore"):
        _write_without_spill(block, weight, out)
    _write_by_hand(block, weight, out, block.spill)
    if out.dtype.kind == "f":
        out += 0  # -0.0, from a negative mean that rounds to zero, becomes +0.0


def _write_without_spill(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    if not block.limbs:
        out[...] = 0
    elif weight.bit_length() > _WEIGHT_BITS:
        _write_by_hand(block, weight, out, range(block.size))
    elif out.dtype.kind != "f":
        out[...] = _integer_means(block, weight, out.dtype)
    elif out.dtype.itemsize == 8:
        _write_divided(block, weight, out, slice(None))
    else:
        _write_narrow(block, weight, out)


def _write_by_hand(block: BlockSum, weight: int, out: NDArray[Any], positions: Any) -> None:
    """Write the means at ``positions`` by way of Python's integers."""
    form = FloatFormat.of(out.dtype) if out.dtype.kind == "f" else None
    for position in positions:
        total, exponent = block.at(position)
        numerator = total << max(exponent, 0)
        denominator = weight << max(-exponent, 0)
        if form is None:
            out[position] = round_to_int(numerator, denominator)
        else:
            out[position] = round_to_float(numerator, denominator, form)


# -- float16 and float32: estimate, and divide only where in doubt ---------------------------------


def _write_narrow(block: BlockSum, weight: int, out: NDArray[Any]) -> None:
    """Write means of a float type of at most 24 bits."""
    estimate = _estimate(block, weight)
    np.copyto(out, estimate * (1 + _DOUBT), casting="same_kind")
    below = (estimate * (1 - _DOUBT)).astype(out.dtype)
    # Rounding is monotonic: where both ends of the interval round alike, so does the mean inside.
    doubtful = np.flatnonzero(out != below)
    if doubtful.size:
        _write_divided(block, weight, out, doubtful)


def _estimate(block: BlockSum, weight: int) -> NDArray[np.float64]:
    """The quotients with a relative error of less than ``_DOUBT``."""
    if len(block.limbs) == 1:
        ((exponent, limb),) = block.limbs.items()
        estimate: NDArray[np.float64] = limb.settle() / float(weight)
        estimate *= 2.0**exponent
        return estimate
    rows, exponent, sign = _signed_digits(block, slice(None))
    # From the top: all digits are >= 0, so that the errors of the partial sums stay relative.
    total = rows[-1].astype(np.float64)
    for row in rows[-2::-1]:
        total *= 2.0**DIGIT
        total += row
    estimate = np.ldexp(total / float(weight), exponent)
    estimate *= sign
    return estimate


# -- division, exact ------------------------------------------------------------------------------


def _write_divided(block: BlockSum, weight: int, out: NDArray[Any], select: Any) -> None:
    """Write the chosen means of a float type, divided digit by digit."""
    rows, exponent, sign = _signed_digits(block, select)
    extra = -(-weight.bit_length() // DIGIT) + 2  # so that two digits follow the first that counts
    quotient, remainder = _divide(rows, weight, extra)
    mantissa, scale = _leading_bits(quotient, remainder != 0)
    scale += exponent - extra * DIGIT
    if out.dtype.itemsize == 8:
        means = np.ldexp(mantissa.astype(np.float64), scale)
    else:
        # 53 bits, the last of them sticky, survive float64 and then round once.
        sticky = (mantissa & 0x1FF) != 0
        means = np.ldexp(((mantissa >> 9) | sticky).astype(np.float64), scale + 9)
    out[select] = means * sign
    if out.dtype.itemsize == 8:
        tiny = np.flatnonzero((mantissa != 0) & (scale < -1074 - 9))  # ldexp rounded a second time
        _write_by_hand(block, weight, out, np.arange(out.size)[select][tiny].tolist())


def _signed_digits(
    block: BlockSum, select: Any
) -> tuple[NDArray[np.int64], int, NDArray[np.int64]]:
    """Digits of the chosen sums' magnitudes (all >= 0), the lowest exponent, and the signs."""
    rows, exponent = block.digits(select)
    sign = np.where(rows[-1] < 0, -1, 1)
    if (sign < 0).any():
        rows *= sign
        carry(rows)
    return rows, exponent, sign


def _divide(
    rows: NDArray[np.int64], weight: int, extra: int
) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Long division of digit rows, lowest first, by ``weight`` < 2**62, ``extra`` digits further.

    Gives the quotient's digit rows, lowest first (the first ``extra`` follow the point), and the
    remainder.
    """
    step = DIGIT  # bits divided at a time: remainder and step must fit 63 bits together
    while step + weight.bit_length() > 63:
        step //= 2
    divisor = np.uint64(weight)
    quotient = np.zeros((len(rows) + extra, rows.shape[1]), dtype=np.uint64)
    quotient[extra:] = rows.view(np.uint64)
    remainder = np.zeros(rows.shape[1], dtype=np.uint64)
    for digits in quotient[::-1]:
        dividend = digits.copy()
        digits[...] = 0
        for low in range(DIGIT - step, -1, -step):
            remainder <<= np.uint64(step)
            remainder |= (dividend >> np.uint64(low)) & np.uint64((1 << step) - 1)
            part = remainder // divisor
            remainder -= part * divisor
            digits <<= np.uint64(step)
            digits |= part
    return quotient, remainder


def _leading_bits(
    quotient: NDArray[np.uint64], inexact: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The first 62 bits of each number, the last set if anything follows, and their exponent.

    The first digit that counts has at least two below it.
    """
    count = len(quotient)
    nonzero = quotient != 0
    first = count - 1 - np.argmax(nonzero[::-1], axis=0)  # of zero: the last, with mantissa 0
    first = np.maximum(first, 2)
    head, middle, last = (
        np.take_along_axis(quotient, (first - below)[np.newaxis], axis=0)[0] for below in range(3)
    )
    bits = np.frexp(head.astype(np.float64))[1].astype(np.uint64)
    tail = (middle << np.uint64(DIGIT)) | last
    dropped = bits + np.uint64(2)  # of the tail's 64 bits
    mantissa = (head << (np.uint64(_MANTISSA) - bits)) | (tail >> dropped)
    lost = tail & ((np.uint64(1) << dropped) - np.uint64(1))
    below_last = np.arange(count)[:, np.newaxis] < first - 2
    sticky = inexact | (lost != 0) | (nonzero & below_last).any(axis=0)
    mantissa |= sticky.astype(np.uint64)
    exponent = first * DIGIT - _MANTISSA + bits.astype(np.int64)
    return mantissa.astype(np.int64), exponent


# -- integers and bools ---------------------------------------------------------------------------


def _integer_means(block: BlockSum, weight: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Means to the nearest integer of ``dtype``, half to even."""
    rows, exponent, sign = _signed_digits(block, slice(None))
    quotient, remainder = _divide(rows, weight, exponent // DIGIT)
    whole = quotient[0] | (quotient[1] << np.uint64(DIGIT))  # such a mean has at most 64 bits
    twice = remainder << np.uint64(1)
    half = np.uint64(weight)
    whole += (twice > half) | ((twice == half) & (whole & np.uint64(1) != 0))
    means: NDArray[Any] = (whole.view(np.int64) * sign).astype(dtype)
    return means
