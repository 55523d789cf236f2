"""Time for the memory broker, real or controlled by a test; and timers."""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable

from flmq.common.logger import get_logger

__all__ = ["Clock", "ManualClock", "Timers"]

_log = get_logger(__name__)


class Clock:
    """Real time, in seconds from an arbitrary origin."""

    def now(self) -> float:
        """Return the current time in seconds."""
        return time.monotonic()

    def drive(self, run_due: Callable[[], None]) -> bool:
        """Offer to call ``run_due`` when time moves; False: the caller must wait itself."""
        return False


class ManualClock(Clock):
    """Time that stands still until a test advances it."""

    def __init__(self, start: float = 0.0) -> None:
        """Start at ``start`` seconds."""
        self._now = start
        self._driven: list[Callable[[], None]] = []

    def now(self) -> float:
        """Return the current time in seconds."""
        return self._now

    def drive(self, run_due: Callable[[], None]) -> bool:
        """Call ``run_due`` at every `advance`; return True."""
        self._driven.append(run_due)
        return True

    def advance(self, seconds: float) -> None:
        """Advance time by ``seconds``, and run everything that is due by then."""
        if seconds < 0:
            raise ValueError(f"time cannot be moved by {seconds} s: it only goes forward")
        self._now += seconds
        for run_due in self._driven:
            run_due()


class Timers:
    """Run actions at given times, in order. With a real clock, in a thread while there are any."""

    def __init__(self, clock: Clock, run: Callable[[Callable[[], None]], None]) -> None:
        """Use ``clock``, and ``run``, which calls an action under the broker's lock."""
        self._clock = clock
        self._run = run
        self._condition = threading.Condition()
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._waiting = False
        self._driven = clock.drive(self.run_due)

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` at the time ``when`` of the clock (seconds)."""
        with self._condition:
            self._count += 1
            heapq.heappush(self._heap, (when, self._count, action))
            if self._driven:
                return
            if not self._waiting:
                self._waiting = True
                threading.Thread(target=self._wait, name="flmq-memory-timers", daemon=True).start()
            self._condition.notify()

    def run_due(self) -> None:
        """Run the actions that are due now."""
        while (action := self._pop_due()) is not None:
            self._run(action)

    def _pop_due(self) -> Callable[[], None] | None:
        with self._condition:
            if self._heap and self._heap[0][0] <= self._clock.now():
                return heapq.heappop(self._heap)[2]
        return None

    def _wait(self) -> None:
        """Wait in a thread that lives as long as there are timers."""
        while True:
            try:
                self.run_due()
            except BaseException:  # a bug must not end the thread: later actions depend on it
                _log.exception("what was due at a time failed")
            with self._condition:
                if not self._heap:
                    self._waiting = False
                    return
                remaining = self._heap[0][0] - self._clock.now()
                if remaining > 0:
                    self._condition.wait(remaining)
