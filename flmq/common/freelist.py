"""What nobody holds any more, kept to be used again: memory, files."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

__all__ = ["FreeList"]

_Thing = TypeVar("_Thing")


class FreeList(Generic[_Thing]):
    """Things with their sizes in bytes, the one that was freed last at the right.

    Without a lock: what is freed may be freed anywhere, by the collector also in the middle of one
    of these methods.
    """

    def __init__(
        self, max_bytes: int, drop: Callable[[_Thing], object] = lambda thing: None
    ) -> None:
        """Keep ``max_bytes`` in all; ``drop`` is told of what is kept no longer."""
        self._max_bytes = max_bytes
        self._drop = drop
        self._things: deque[tuple[_Thing, int]] = deque()

    def take(self, size: int) -> _Thing | None:
        """The one of this size that was freed last; None: there is none."""
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
        """The one that was freed first, whatever its size; None: there is none."""
        try:
            return self._things.popleft()[0]
        except IndexError:
            return None

    def give_back(self, thing: _Thing, size: int) -> None:
        """Keep a thing that nobody holds, in place of the oldest where it is too much."""
        self._things.append((thing, size))
        self.trim(self._max_bytes)

    def keep(self, max_bytes: int) -> None:
        """Keep so much, from now on."""
        self._max_bytes = max_bytes
        self.trim(max_bytes)

    def trim(self, max_bytes: int) -> None:
        """Drop the oldest until no more than ``max_bytes`` are left."""
        # A tuple of them may be interrupted by the collector, and so by what is freed.
        while sum(size for _, size in self._things.copy()) > max_bytes:
            oldest = self.take_oldest()
            if oldest is None:
                return
            self._drop(oldest)
