"""Where the memory of sums comes from: large pieces, which the kernel backs with large pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LimbSpace"]

_SLAB = 1 << 21  # elements of a large piece: 16 MiB


class LimbSpace:
    """Arrays of int64 zeros, cut from large pieces for as many elements as were announced.

    Numpy asks for large pages (of 2 MiB, on Linux) in allocations of this size; a model's first
    reply, which touches all memory for the first time, is then added about twice as fast. What is
    needed beyond what was announced is little, as a rule, and allocated as it comes.
    """

    __slots__ = ("_free", "_left")

    def __init__(self, elements: int) -> None:
        """Announce so many elements in all; nothing is allocated yet."""
        self._left = elements
        self._free = np.empty(0, dtype=np.int64)

    def zeros(self, size: int) -> NDArray[np.int64]:
        """A new array of zeros."""
        if size > self._free.size and self._left:
            count = min(self._left, _SLAB)
            self._left -= count
            self._free = np.empty(count, dtype=np.int64)
        if size > self._free.size:
            return np.zeros(size, dtype=np.int64)
        taken, self._free = self._free[:size], self._free[size:]
        taken[...] = 0
        return taken
