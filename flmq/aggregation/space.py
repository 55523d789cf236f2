"""Memory for sums, in large allocations that the kernel backs with huge pages."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["LimbSpace"]

_SLAB = 1 << 21
"""Elements of a large piece: 16 MiB, which the allocator keeps for the next round's sum."""
_LARGE = 1 << 26
"""Elements of a sum, 512 MiB, from which on its pieces go back to the system."""
_LARGE_SLAB = 1 << 23
"""Elements of its pieces: 64 MiB, which glibc maps each by itself."""


class LimbSpace:
    """Allocate int64 arrays of zeros from large slabs, for as many elements as were announced.

    On Linux, numpy asks for huge pages (2 MiB) for allocations of this size; adding a model's first
    reply, which touches all memory for the first time, is then about twice as fast. Beyond the
    announced number of elements little is needed, and each array is allocated on its own.
    """

    __slots__ = ("_free", "_left", "_slab")

    def __init__(self, elements: int) -> None:
        """Announce the number of elements; nothing is allocated yet."""
        self._left = elements
        self._slab = _SLAB if elements < _LARGE else _LARGE_SLAB
        self._free = np.empty(0, dtype=np.int64)

    def zeros(self, size: int) -> NDArray[np.int64]:
        """Return a new int64 array of ``size`` zeros."""
        if size > self._free.size and self._left:
            count = min(self._left, self._slab)
            self._left -= count
            self._free = np.empty(count, dtype=np.int64)
        if size > self._free.size:
            return np.zeros(size, dtype=np.int64)
        taken, self._free = self._free[:size], self._free[size:]
        taken[...] = 0
        return taken
