"""A free list: memory and files that are no longer in use, kept for reuse."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["FreeList"]

_Thing = TypeVar("_Thing")


class FreeList(Generic[_Thing]):
    """Free things with their sizes in bytes, the most recently freed at the right.

    It has no lock: a thing may be freed anywhere, even by the garbage collector in the middle of
    one of these methods.
    """

    def __init__(
        self, max_bytes: int, drop: Callable[[_Thing], object] = lambda thing: None
    ) -> None:
        """Keep at most ``max_bytes`` in all; call ``drop`` with each thing that is evicted."""
        self._max_bytes = max_bytes
        self._drop = drop
        self._things: deque[tuple[_Thing, int]] = deque()

    def take(self, size: int) -> _Thing | None:
        """Take the most recently freed thing of this size; None if there is none."""
        try:
            for _ in range(len(self._things)):
                thing, has = self._things.pop()
                if has == size:
                    return thing
                self._things.appendleft((thing, has))
        except IndexError:
            pass  # dropped meanwhile
        return None

    def take_oldest(self) -> _Thing | None:
        """Take the thing that was freed first, whatever its size; None if the list is empty."""
        try:
            return self._things.popleft()[0]
        except IndexError:
            return None

    def give_back(self, thing: _Thing, size: int) -> None:
        """Keep a thing that is no longer in use; evict the oldest if the limit is passed."""
        self._things.append((thing, size))
        self.trim(self._max_bytes)

    def keep(self, max_bytes: int) -> None:
        """Change the limit to ``max_bytes``."""
        self._max_bytes = max_bytes
        self.trim(max_bytes)

    def trim(self, max_bytes: int) -> None:
        """Evict the oldest until at most ``max_bytes`` are left."""
        # Copying to a tuple may trigger the garbage collector, which may free more things.
        while sum(size for _, size in self._things.copy()) > max_bytes:
            oldest = self.take_oldest()
            if oldest is None:
                return
            self._drop(oldest)
