"""Rules for each coordinate by itself, of (models, numbers): for `coordinate_wise`.

Means are exact and rounded once, so the result is a function of the set of values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flmq.aggregation import weighted_mean
from flmq.common.errors import NonFiniteValues
from flmq.common.typing import NDArray
from flmq.server.strategy.robust.sorting import sorted_rows, strips

__all__ = ["closest_to_median", "mean", "median", "trimmed_mean"]

_Rule = Callable[[NDArray], NDArray]


def mean(rows: Sequence[NDArray] | NDArray) -> NDArray:
    """Return the mean over rows, each of which counts the same: exact, in their dtype.

    Raises:
        NonFiniteValues: NaN or infinity.
    """
    try:
        return weighted_mean(([row], 1) for row in rows)[0]
    except NonFiniteValues:  # names a row of sorted values, which is nobody's reply
        raise NonFiniteValues("NaN or infinity among the values to be averaged") from None


def _in_strips(rule: _Rule) -> _Rule:
    """Return ``rule``, applied to pieces that fit the cache."""

    def whole(values: NDArray) -> NDArray:
        made = np.empty(values.shape[1], values.dtype)
        for start, strip in strips(values):
            made[start : start + strip.shape[1]] = rule(strip)
        return made

    return whole


@_in_strips
def median(values: NDArray) -> NDArray:
    """Return each column's middle number, or the mean of the middle two. Changes ``values``.

    Raises:
        NonFiniteValues: it is NaN or infinity.
    """
    half = len(values) // 2
    middle = sorted_rows(values, half - 1 + len(values) % 2, half + 1)
    if len(middle) == 2:
        return mean(middle)
    if middle[0].dtype.kind not in "biu" and not np.isfinite(middle[0]).all():
        raise NonFiniteValues("the median is NaN or infinite")
    return middle[0]


def trimmed_mean(cut: int) -> _Rule:
    """Return a rule: each column's mean without its ``cut`` smallest and ``cut`` largest."""
    return _in_strips(lambda values: mean(sorted_rows(values, cut, len(values) - cut)))


def closest_to_median(keep: int) -> _Rule:
    """Return a rule: the mean of the ``keep`` numbers of each column nearest to its median.

    Of two that are equally far the smaller counts. Sorted, the nearest stand side by side, so the
    rule looks for the window whose farther end is nearest.
    """

    def rule(values: NDArray) -> NDArray:
        rows = sorted_rows(values)
        half, odd = divmod(len(rows), 2)
        low, high = rows[half - 1 + odd].astype(float), rows[half].astype(float)
        centre = 0.5 * low + 0.5 * high  # the sum of both may overflow
        kept = [row.copy() for row in rows[:keep]]
        nearest = np.full(centre.shape, np.inf)
        for first in range(len(rows) - keep + 1):
            window = rows[first : first + keep]
            with np.errstate(over="ignore"):
                radius = np.maximum(centre - window[0], window[-1] - centre)
            better = radius < nearest
            np.copyto(nearest, radius, where=better)
            for row, new in zip(kept, window, strict=True):
                np.copyto(row, new, where=better)
        return mean(kept)

    return _in_strips(rule)
