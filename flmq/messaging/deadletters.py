"""How many messages are laid aside for a person to see: a sample of a flood, and its number."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.common.logger import logger

__all__ = ["DeadLetterLimit"]

_AT_ONCE = 100
_A_SECOND = 10.0
_SAY_EVERY = 10.0


class DeadLetterLimit:
    """A hundred at once and ten a second go to ``flmq.dead``; the others are counted. One thread's.

    Each costs a publication and its confirm, and stays in a queue: whoever sends garbage in
    thousands would hold up everything else, and fill the broker's disk.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._left: float = _AT_ONCE
        self._refilled = self._said = clock()
        self._dropped = 0
        self._last = ("", "")
        self.dropped = 0
        """Messages that were dropped, so far."""

    def admits(self, queue: str, reason: str) -> bool:
        """Whether one more may be laid aside; if not, it is counted, to be dropped."""
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
        """Tell the log, in one line every ten seconds, how many were dropped."""
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
