"""Memory for whole models, used again: taking it anew from the system costs more than filling it.

A fresh ``bytearray`` of 50 MB takes 12,000 page faults, 35 ms; in huge pages, which numpy asks for
from 4 MiB on, it takes 5 to 20 ms, by how much the system has to clear; used again it takes none.
"""

from __future__ import annotations

import os
import weakref
from collections import deque

import numpy as np
from numpy.typing import NDArray

from flmq.common.machine import total_memory

__all__ = ["KEEP_MEMORY", "new_buffer"]

KEEP_MEMORY = os.environ.get("FLMQ_KEEP_MEMORY") != "0"
"""Whether memory that is freed may be kept to be used again, within limits."""

_LARGE = 1 << 20
"""Bytes below which the allocator does as well."""

_Memory = NDArray[np.uint8]


class _Free:
    """Buffers that nobody holds, the one freed last at the right.

    Without a lock: what is freed may be freed anywhere, also in the middle of `take`.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._buffers: deque[_Memory] = deque()

    def take(self, size: int) -> _Memory:
        for _ in range(len(self._buffers)):
            try:
                buffer = self._buffers.pop()
            except IndexError:
                break
            if buffer.nbytes == size:
                return buffer
            self._buffers.appendleft(buffer)
        return np.empty(size, np.uint8)

    def give_back(self, buffer: _Memory) -> None:
        self._buffers.append(buffer)
        # A tuple of them may be interrupted by the collector, and so by what is freed.
        while sum(each.nbytes for each in self._buffers.copy()) > self._max_bytes:
            try:
                self._buffers.popleft()
            except IndexError:
                break


def _kept_bytes() -> int:
    """A sixteenth of the machine's memory: peaks stay what they were, what is idle may be that."""
    return total_memory() // 16 if KEEP_MEMORY else 0


_free = _Free(_kept_bytes())


def new_buffer(size: int) -> memoryview:
    """``size`` writable bytes of any value.

    They are free once no view, array or slice of them is left. What is free is kept for the next,
    up to a sixteenth of the machine's memory; ``FLMQ_KEEP_MEMORY=0`` keeps none.

    Raises:
        MemoryError: there are not so many.
    """
    if size < _LARGE:
        return np.empty(size, np.uint8).data
    memory = _free.take(size)
    handed_out = memory[:]  # all that is made of it keeps this one alive
    weakref.finalize(handed_out, _free.give_back, memory).atexit = False
    return handed_out.data
