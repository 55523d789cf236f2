"""Negative zeros, which a sum of numbers does not remember: the mean of -0.0 alone is -0.0.

What must be known in the end is of which elements *every* number with a weight was -0.0. A flag
could not be taken back with a reply that breaks off, so the weights of the negative zeros are added
up, in integers, and compared with the total weight. Models have few, so most blocks have none to
add up, and need no memory for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["NegativeZeros"]

_INT64 = 1 << 62


class NegativeZeros:
    """For each element of a block, the total weight of the -0.0 that were added to it."""

    __slots__ = ("_load", "weights")

    def __init__(self, size: int) -> None:
        """Start with none, for ``size`` elements."""
        self.weights: NDArray[Any] = np.zeros(size, np.int64)
        """int64, or Python's integers once the weights may be larger."""
        self._load = 0

    def add(self, positions: NDArray[np.intp], weight: int) -> None:
        """Count a -0.0 of this weight (negative to take it back) at distinct ``positions``."""
        self._make_room(abs(weight))
        self.weights[positions] += weight

    def add_all(self, weights: NDArray[Any]) -> None:
        """Count -0.0 of these weights, one for each element."""
        # As Python's integers: numpy's would overflow for the least of int64.
        self._make_room(max(abs(int(weights.max())), abs(int(weights.min()))))
        self.weights += weights.astype(self.weights.dtype)

    def fill(self, weight: int) -> NDArray[np.bool_]:
        """Return where all of a total ``weight`` (positive) is that of -0.0."""
        mask: NDArray[np.bool_] = np.asarray(self.weights == weight, np.bool_)
        return mask

    def _make_room(self, weight: int) -> None:
        self._load += weight
        if self._load >= _INT64 and self.weights.dtype != object:
            self.weights = self.weights.astype(object)
