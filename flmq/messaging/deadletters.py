"""Limit how many messages are dead-lettered: a sample of a flood, and the number of the others."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.common.logger import logger

__all__ = ["DeadLetterLimit"]

_AT_ONCE = 100
_A_SECOND = 10.0
_SAY_EVERY = 10.0


class DeadLetterLimit:
    """Send at most a hundred at once and ten a second to ``flmq.dead``; count the others.

    Each costs a publication and its confirm, and stays in a queue: a sender of garbage in thousands
    would otherwise delay everything else, and fill the broker's disk. Not thread-safe.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with the full allowance; ``clock`` gives seconds."""
        self._clock = clock
        self._left: float = _AT_ONCE
        self._refilled = self._said = clock()
        self._dropped = 0
        self._last = ("", "")
        self.dropped = 0
        """Number of messages dropped so far."""

    def admits(self, queue: str, reason: str) -> bool:
        """Return whether one more may be dead-lettered; if not, count it as dropped."""
        now = self._clock()
        self._left = min(_AT_ONCE, self._left + (now - self._refilled) * _A_SECOND)
        self._refilled = now
        if self._left >= 1:
            self._left -= 1
            return True
        self._dropped += 1
        self.dropped += 1
        self._last = queue, reason
        return False

    def say(self) -> None:
        """Log how many were dropped, one line every ten seconds."""
        if not self._dropped or self._clock() - self._said < _SAY_EVERY:
            return
        queue, reason = self._last
        logger.warning(
            "%d more messages that nobody can use came faster than flmq.dead takes them and were "
            "dropped; the last, from %s: %s",
            self._dropped,
            queue,
            reason,
        )
        self._dropped, self._said = 0, self._clock()
