"""The exact weighted mean of scalars: losses and metrics.

The sum is kept in integer arithmetic, so the result does not depend on the order of the pairs, and
is rounded once.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from math import isfinite

from flmq.aggregation.weights import checked_weight
from flmq.common.errors import NonFiniteValues

__all__ = ["weighted_mean_of_scalars"]


def weighted_mean_of_scalars(pairs: Iterable[tuple[int, float]]) -> float | None:
    """Return ``sum(weight * value) / sum(weight)`` of (weight, value) pairs, to the nearest float.

    Weights are integers >= 0, such as numbers of examples. None if there are no pairs or all
    weights are zero. A mean of zero is +0.0.

    Raises:
        NonFiniteValues: a value is NaN or infinite.
        AggregationError: a weight is negative or not an integer.
    """
    total = 0
    weighted = Fraction(0)
    for position, (weight, value) in enumerate(pairs):
        if not isfinite(value):
            raise NonFiniteValues(f"value {position} of the scalars to average is {value}")
        count = checked_weight(weight)
        total += count
        weighted += count * Fraction(value)
    if not total:
        return None
    # int / int is correctly rounded, and the mean lies between the values: it cannot overflow.
    mean = weighted / total
    return mean.numerator / mean.denominator + 0.0  # never -0.0
