"""The memory broker's lock, and what is deferred until it is released or until later.

Everything happens under one lock; calls to others (futures, listeners) wait until it is released,
so that no code of theirs runs inside. Nothing polls: waiting threads are notified.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from flmq.transport.memory.clock import Clock, Timers

__all__ = ["Scheduler"]


class Scheduler:
    """Hold the broker's lock, and run what is due. Thread-safe."""

    def __init__(self, clock: Clock) -> None:
        """Use ``clock`` for the time."""
        self.lock = threading.Lock()
        self._clock = clock
        self._timers = Timers(clock, self._run_locked)
        self._effects: deque[Callable[[], None]] = deque()
        self._soon: deque[Callable[[], None]] = deque()

    def locked(self) -> Scheduler:
        """Hold the lock, which is not reentrant; afterwards run what was deferred with `later`."""
        return self

    def __enter__(self) -> None:
        """Take the lock."""
        self.lock.acquire()

    def __exit__(self, *_: object) -> None:
        """Release the lock, and run what was deferred, whatever has failed meanwhile."""
        effects: deque[Callable[[], None]] | None = None
        try:
            while self._soon:
                self._soon.popleft()()
        finally:
            if self._effects:
                effects, self._effects = self._effects, deque()
            self.lock.release()
            for effect in effects or ():
                effect()

    def soon(self, action: Callable[[], None]) -> None:
        """Run ``action`` under the lock after the current one: keeps the stack flat."""
        self._soon.append(action)

    def later(self, effect: Callable[[], None]) -> None:
        """Run ``effect`` as soon as the lock is released: futures and listeners are not ours."""
        self._effects.append(effect)

    def now(self) -> float:
        """Return the time on the broker's clock, in seconds."""
        return self._clock.now()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Run ``action`` under the lock at the time ``when`` (seconds)."""
        self._timers.at(when, action)

    def _run_locked(self, action: Callable[[], None]) -> None:
        with self.locked():
            action()
