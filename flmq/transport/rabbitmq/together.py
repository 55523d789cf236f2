"""The connections of one process, which wait for their broker together.

While it is away one of them tries, for all: a thousand clients are a thousand tries, not three
thousand. When that one is in, the others follow at once.
"""

from __future__ import annotations

import threading
from typing import Protocol

__all__ = ["Together", "Waiting"]


class Waiting(Protocol):
    """A connection that was lost."""

    def follow(self) -> None:
        """Try now, for the broker has answered another. Called on that one's thread."""


class Together:
    """Who of a transport's connections waits for the broker. Thread-safe."""

    def __init__(self) -> None:
        """Begin with nobody waiting."""
        self._lock = threading.Lock()
        self._waiting: dict[Waiting, None] = {}

    def wait(self, connection: Waiting) -> None:
        """Note that it was lost, or still is."""
        with self._lock:
            self._waiting.setdefault(connection)

    def leads(self, connection: Waiting) -> bool:
        """Whether it is the one that tries: who has waited longest."""
        with self._lock:
            return next(iter(self._waiting), connection) is connection

    def leave(self, connection: Waiting) -> None:
        """Note that it waits no more, for it is not wanted any more."""
        with self._lock:
            self._waiting.pop(connection, None)

    def arrived(self, connection: Waiting) -> None:
        """Note that it is in, and have the others follow."""
        with self._lock:
            self._waiting.pop(connection, None)
            others = list(self._waiting)
        for other in others:
            other.follow()
