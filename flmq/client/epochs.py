"""Which server of a job is in charge: the one of the highest epoch, within reason."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Epochs"]

_AHEAD_MS = 24 * 3600 * 1000
"""How far the clocks of a server and its clients may differ."""


class Epochs:
    """The highest epoch heard of each job that has not ended.

    An epoch is a server's clock. One from the far future is no server's by our clock: it gives way
    to whatever is within reason, lest one damaged message make a client deaf to its server. Where
    our own clock is wrong by days, all are alike.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """``clock`` gives Unix seconds."""
        self._clock = clock
        self._heard: dict[str, int] = {}

    def is_earlier(self, job: str, epoch: int) -> bool:
        """Whether ``epoch`` is that of a server before the one in charge."""
        heard = self._heard.get(job)
        return heard is not None and self._rank(epoch) < self._rank(heard)

    def hear(self, job: str, epoch: int) -> bool:
        """Note a server's epoch; False if another server came after it."""
        if self.is_earlier(job, epoch):
            return False
        self._heard[job] = epoch
        return True

    def end(self, job: str, epoch: int) -> bool:
        """Forget a job that its server of ``epoch`` ended; False if it is not its to end."""
        if job not in self._heard or self.is_earlier(job, epoch):
            return False
        del self._heard[job]
        return True

    def _rank(self, epoch: int) -> tuple[bool, int]:
        return epoch <= self._clock() * 1000 + _AHEAD_MS, epoch
