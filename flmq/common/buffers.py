"""Memory for whole models, used again: taking it anew from the system costs more than filling it.

A fresh ``bytearray`` of 50 MB takes 12,000 page faults, 35 ms; in huge pages, which numpy asks for
from 4 MiB on, it takes 5 to 20 ms, by how much the system has to clear; used again it takes none.
"""

from __future__ import annotations

import os
import weakref

import numpy as np
from numpy.typing import NDArray

from flmq.common.freelist import FreeList
from flmq.common.machine import total_memory

__all__ = ["KEEP_MEMORY", "LARGE", "new_buffer"]

KEEP_MEMORY = os.environ.get("FLMQ_KEEP_MEMORY") != "0"
"""Whether memory that is freed may be kept to be used again, within limits."""

LARGE = 1 << 20
"""Bytes below which the allocator does as well."""

_Memory = NDArray[np.uint8]


def _kept_bytes() -> int:
    """A sixteenth of the machine's memory: peaks stay what they were, what is idle may be that."""
    return total_memory() // 16 if KEEP_MEMORY else 0


_free: FreeList[_Memory] = FreeList(_kept_bytes())


def new_buffer(size: int) -> memoryview:
    """``size`` writable bytes of any value.

    They are free once no view, array or slice of them is left. What is free is kept for the next,
    up to a sixteenth of the machine's memory; ``FLMQ_KEEP_MEMORY=0`` keeps none.

    Raises:
        MemoryError: there are not so many.
    """
    if size < LARGE:
        return np.empty(size, np.uint8).data
    memory = _free.take(size)
    if memory is None:
        memory = np.empty(size, np.uint8)
    handed_out = memory[:]  # all that is made of it keeps this one alive
    weakref.finalize(handed_out, _free.give_back, memory, size).atexit = False
    return handed_out.data
