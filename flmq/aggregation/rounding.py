"""Round an exact fraction once, to a floating-point format or to an integer, half to even.

These are the scalar rules in integer arithmetic, for any numerator and denominator. Most of a model
is rounded by vectorized code (``quotients``), which must give the same results.
"""

from __future__ import annotations

from math import copysign, inf, ldexp

from flmq.common.dtypes import FloatFormat

__all__ = ["round_to_float", "round_to_int"]


def round_to_int(numerator: int, denominator: int) -> int:
    """Return ``numerator / denominator`` rounded to the nearest integer, half to even.

    ``denominator`` must be positive.
    """
    quotient, rest = divmod(numerator, denominator)
    twice = 2 * rest
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def round_to_float(numerator: int, denominator: int, form: FloatFormat) -> float:
    """Return ``numerator / denominator`` rounded to the nearest number of ``form``, half to even.

    Subnormal numbers of the format are rounded once as well. The result is a Python float that
    holds the number exactly; zero is always +0.0. ``denominator`` must be positive. What
    overflows float64 is infinite, as it is in vectorized code: a mean of the format's numbers never
    does, but a sum that was forged may.
    """
    # The quotient has this many bits or one more, so the last place is known to within one.
    exponent = abs(numerator).bit_length() - denominator.bit_length() - form.precision
    exponent = max(exponent, form.min_exp)
    for place in (exponent, exponent + 1):
        scaled = _shifted(numerator, denominator, place)
        if abs(scaled) <= 1 << form.precision:
            try:
                return ldexp(scaled, place) if scaled else 0.0
            except OverflowError:
                return copysign(inf, scaled)
    raise AssertionError("the quotient has at most precision + 1 bits")


def _shifted(numerator: int, denominator: int, place: int) -> int:
    """Return ``numerator / denominator / 2**place`` rounded to the nearest integer."""
    if place >= 0:
        return round_to_int(numerator, denominator << place)
    return round_to_int(numerator << -place, denominator)
