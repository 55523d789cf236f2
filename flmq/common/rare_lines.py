"""Warnings that come in floods: the first of them, then one now and then with their number."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flmq.common.logger import logger

__all__ = ["RareLines"]

_AT_ONCE = 20
_EVERY = 10.0


class RareLines:
    """Log at most 20 warnings of a kind at once, and then one every ten seconds. Thread-safe.

    Whoever floods a process with what it says a line about must not fill its disk with lines.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin with nothing said; ``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._left = float(_AT_ONCE)
        self._refilled = clock()
        self._unsaid = 0
        self.count = 0
        """How many there were, said or not."""

    def warn(self, text: str) -> None:
        """Log ``text``, with the number of those that were left out before it; or leave it out."""
        with self._lock:
            now = self._clock()
            self._left = min(_AT_ONCE, self._left + (now - self._refilled) / _EVERY)
            self._refilled = now
            self.count += 1
            if self._left < 1:
                self._unsaid += 1
                return
            self._left -= 1
            unsaid, self._unsaid = self._unsaid, 0
        if unsaid:
            logger.warning("%s (and %d like it before, that were not logged)", text, unsaid)
        else:
            logger.warning("%s", text)
