"""What is freed is used again, as much as is to be kept, and never while somebody holds it."""

from __future__ import annotations

import gc

import numpy as np

from flmq.common.buffers import LARGE, new_buffer
from flmq.common.freelist import FreeList


def test_the_one_of_a_size_that_was_freed_last_is_taken_first() -> None:
    free: FreeList[str] = FreeList(100)
    for thing, size in (("a", 10), ("b", 20), ("c", 10)):
        free.give_back(thing, size)
    assert [free.take(10), free.take(10), free.take(10)] == ["c", "a", None]
    assert free.take(20) == "b"


def test_whatever_its_size_the_oldest_is_taken_first() -> None:
    free: FreeList[str] = FreeList(100)
    for thing in "abc":
        free.give_back(thing, 30)
    assert [free.take_oldest() for _ in range(4)] == ["a", "b", "c", None]


def test_the_oldest_are_dropped_beyond_what_is_kept() -> None:
    dropped: list[str] = []
    free: FreeList[str] = FreeList(50, dropped.append)
    for thing in "abc":
        free.give_back(thing, 20)
    assert dropped == ["a"]
    free.trim(0)
    assert dropped == ["a", "b", "c"]
    free.give_back("d", 20)
    free.keep(0)
    free.give_back("e", 20)
    assert dropped == ["a", "b", "c", "d", "e"]
    assert free.take(20) is None


def test_memory_is_used_again_when_no_view_or_array_of_it_is_left() -> None:
    size = LARGE + 12_345  # nobody else's
    first = new_buffer(size)
    array = np.frombuffer(first[8:16], np.uint8)
    address = np.frombuffer(first, np.uint8).ctypes.data
    array[:] = 7
    del first
    gc.collect()
    second = new_buffer(size)
    second[:] = bytes(size)
    assert np.frombuffer(second, np.uint8).ctypes.data != address
    assert set(array) == {7}
    del array
    gc.collect()
    assert np.frombuffer(new_buffer(size), np.uint8).ctypes.data == address
