"""Which server of a job is in charge: the one with the highest epoch within one run."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["Epochs"]

_AHEAD_MS = 24 * 3600 * 1000
"""How far the clocks of a server and its clients may differ, in ms."""
_JOBS = 10_000
"""Jobs known at a time, those heard last: whoever can write to a client's queue can invent them."""
_RUNS = 16
"""Runs known per job at a time: one, except for those that were left unfinished."""


class Epochs:
    """The highest epoch seen of each run of each job that has not ended.

    An epoch is a server's clock, so it is compared within one run only, where a journal increases
    it: a server that begins the job anew may have a clock an hour behind. An epoch far in the
    future by our clock is not believed: it yields to any reasonable one, lest one damaged message
    make a client deaf to its server. If our own clock is wrong by days, all are treated alike.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.time,
        forgotten: Callable[[str], None] = lambda job: None,
    ) -> None:
        """Start empty; ``clock`` gives Unix seconds.

        ``forgotten`` is told of each job that is forgotten as there are too many.
        """
        self._clock = clock
        self._forgotten = forgotten
        self._heard: dict[str, dict[str, int]] = {}
        """The highest epoch by job and run."""
        self._in_charge: dict[str, str] = {}
        """The run of each job whose server was heard last."""

    def hear(self, job: str, epoch: int, run: str = "") -> bool:
        """Note a server's epoch; return False if a later server of that run is known."""
        if self._is_earlier(job, epoch, run):
            return False
        runs = self._heard[job] = self._heard.pop(job, {})  # the one heard last is the last
        runs[run] = epoch
        if len(self._heard) > _JOBS:
            forgotten = next(iter(self._heard))
            del self._heard[forgotten]
            self._in_charge.pop(forgotten, None)
            self._forgotten(forgotten)
        if len(runs) > _RUNS:
            del runs[next(iter(runs))]
        return True

    def takes_over(self, job: str, run: str) -> bool:
        """Note that a run's server is here; return whether another run of the job was known.

        Earlier versions of the server do not send their run: it may be the same one.
        """
        before, self._in_charge[job] = self._in_charge.get(job), run
        if before is None:
            return bool(run) and any(other not in ("", run) for other in self._heard.get(job, {}))
        return bool(run and before) and before != run

    def knows(self, job: str) -> bool:
        """Return whether a job is known and has not ended."""
        return job in self._heard

    def end(self, job: str, epoch: int, run: str = "") -> frozenset[str]:
        """Forget what the server of ``epoch`` ended; return the ended runs, none if it is outdated.

        If it is the run in charge, the job is over, and so are its earlier runs.
        """
        runs = self._heard.get(job, {})
        if run not in runs or self._is_earlier(job, epoch, run):
            return frozenset()
        if self._in_charge.get(job, run) == run:
            self._in_charge.pop(job, None)
            return frozenset(self._heard.pop(job))
        del runs[run]
        return frozenset({run})

    def _is_earlier(self, job: str, epoch: int, run: str) -> bool:
        heard = self._heard.get(job, {}).get(run)
        return heard is not None and self._rank(epoch) < self._rank(heard)

    def _rank(self, epoch: int) -> tuple[bool, int]:
        return epoch <= self._clock() * 1000 + _AHEAD_MS, epoch
