"""The connections of one process wait for their broker together.

While it is away, one of them tries on behalf of all: a thousand clients make a thousand tries, not
three thousand. When that one is connected, the others follow at once.
"""

from __future__ import annotations

import threading
from typing import Protocol

__all__ = ["Together", "Waiting"]


class Waiting(Protocol):
    """A connection that was lost."""

    def follow(self) -> None:
        """Try now, as another connection has succeeded. Called on that one's thread."""


class Together:
    """Which of a transport's connections are waiting for the broker. Thread-safe."""

    def __init__(self) -> None:
        """Start with none waiting."""
        self._lock = threading.Lock()
        self._waiting: dict[Waiting, None] = {}

    def wait(self, connection: Waiting) -> None:
        """Note that ``connection`` was lost, or still is."""
        with self._lock:
            self._waiting.setdefault(connection)

    def leads(self, connection: Waiting) -> bool:
        """Return whether ``connection`` is the one to try: the one that has waited longest."""
        with self._lock:
            return next(iter(self._waiting), connection) is connection

    def leave(self, connection: Waiting) -> None:
        """Note that ``connection`` is no longer wanted and stops waiting."""
        with self._lock:
            self._waiting.pop(connection, None)

    def arrived(self, connection: Waiting) -> None:
        """Note that ``connection`` is open, and make the others follow."""
        with self._lock:
            self._waiting.pop(connection, None)
            others = list(self._waiting)
        for other in others:
            other.follow()
