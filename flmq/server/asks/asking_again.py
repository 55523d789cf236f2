"""Decide whom to ask once more: where silence is not explained by the queue in front of it.

A task or a reply may be lost with a queue, so a client that says nothing is asked again. A client
that is busy, or a server that is, says nothing either, and asking would make both busier. So:

- Nobody is asked while the phase flows: while what came lately would bring all that is missing
  within `_SOON` seconds, or chunks of large replies are coming in.
- A client is not asked while its process flows: while other clients of the process answer.
- Each is asked after 30 s, then ever later; at most `_RATE` of a job in a second. However well
  all flows, it is asked once in `_LONGEST` seconds: its task may be the one that was lost.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable

__all__ = ["Allowance", "AskingAgain", "Excuse", "Flow"]

Excuse = Callable[[str, bool], bool | None]
"""Is called with an ask, and whether it is long overdue. Returns whether its silence is explained,
so that it is looked at again later; None to forget the ask."""

_RATE = 100.0
"""Tasks a second that are published again, of all phases of a job."""
_SOON = 100.0
_LONGEST = 600.0
_TIMES = 10
"""How many times longer than the first time a client is left alone at most."""


class Allowance:
    """How many tasks may be published again now: `_RATE` a second, saved up for one second."""

    def __init__(self, rate: float = _RATE) -> None:
        """Start with a second's worth."""
        self._rate = rate
        self._saved = rate
        self._at: float | None = None

    def take(self, now: float) -> bool:
        """Take one, if there is one."""
        passed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._saved = min(self._rate, self._saved + self._rate * passed)
        if self._saved < 1.0:
            return False
        self._saved -= 1.0
        return True


class Flow:
    """What has come in lately: of a phase, and of each process. Times are monotonic seconds."""

    def __init__(self, window: float, processes: dict[str, float]) -> None:
        """Nothing has come yet.

        "Lately" reaches back ``window`` seconds. ``processes`` has when a client of a process last
        answered; it is shared by all phases of a job.
        """
        self._window = window
        self._processes = processes
        self._came: deque[tuple[float, int]] = deque()
        self._lately = 0
        self._bytes = 0
        self._bytes_at: float | None = None

    def note(self, now: float, processes: Iterable[str], received: int) -> None:
        """Note from which ``processes`` replies came since the last note, one for each reply.

        ``received`` is the number of bytes of incomplete replies that are here.
        """
        count = 0
        for process in processes:
            count += 1
            if process:
                self._processes[process] = now
        if count:
            self._came.append((now, count))
            self._lately += count
        while self._came and self._came[0][0] < now - self._window:
            self._lately -= self._came.popleft()[1]
        if received > self._bytes:
            self._bytes_at = now
        self._bytes = received

    def flows(self, now: float, pending: int) -> bool:
        """Return whether the ``pending`` replies need no asking for, as things are."""
        if self._bytes_at is not None and now - self._bytes_at < self._window:
            return True
        return self._lately > 0 and self._lately * _SOON >= pending * self._window

    def process_flows(self, process: str, now: float) -> bool:
        """Return whether a client of this process has answered lately."""
        at = self._processes.get(process)
        return at is not None and now - at < self._window


class AskingAgain:
    """When to ask whom of a phase once more. Times are monotonic seconds."""

    def __init__(self, asks: Iterable[str], now: float, every: float) -> None:
        """``asks`` are published ``now``; ask again after ``every`` seconds, then ever later."""
        self._every = every
        self._heap = [(now + every, number, ask) for number, ask in enumerate(asks)]
        self._published = {ask: (now, 1) for _, _, ask in self._heap}
        """When each was published last, and how often in all."""

    @property
    def times(self) -> int:
        """How often the task that was published most often was published."""
        return max((times for _, times in self._published.values()), default=1)

    def soon(self, now: float) -> None:
        """Look at all again now, as the broker may have lost what it had."""
        self._heap = [(now, number, ask) for _, number, ask in self._heap]

    def due(self, now: float, allowance: Allowance, excuse: Excuse) -> set[str]:
        """Return whom to ask now; ``excuse`` says whose silence is explained."""
        found: set[str] = set()
        while self._heap and self._heap[0][0] <= now:
            _, number, ask = self._heap[0]
            at, times = self._published[ask]
            excused = excuse(ask, now - at >= _LONGEST)
            if excused is None:
                heapq.heappop(self._heap)
                continue
            wait = self._every / 3
            if not excused:
                if not allowance.take(now):
                    break  # the others are no less overdue in a second
                wait = self._every * min(2**times // 2, _TIMES)
                self._published[ask] = now, times + 1
                found.add(ask)
            heapq.heapreplace(self._heap, (now + wait, number, ask))
        return found
