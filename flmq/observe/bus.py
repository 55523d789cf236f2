"""Deliver events to observers: in order, each on a thread of its own that nothing waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from flmq.observe.events import Observer, RunEvent, WorkerEvent, WorkerObserver
from flmq.observe.mailbox import Mailbox
from flmq.observe.past_rounds import PastRounds
from flmq.observe.so_far import RunSoFar

__all__ = ["EventBus", "WorkerBus"]

_LIMIT = 100_000
"""Approximate maximum of events that wait for an observer: some 50 MB of clients' outcomes."""
_STUCK_AFTER = 10.0
"""Seconds in one call after which, at the end, an observer is no longer waited for."""

_Event = TypeVar("_Event")


class _Bus(Generic[_Event]):
    """Deliver each event to every observer, in the order of `emit`."""

    def __init__(
        self,
        observers: Sequence[Callable[[_Event], None]] = (),
        *,
        limit: int = _LIMIT,
        stuck_after: float = _STUCK_AFTER,
    ) -> None:
        """Start calling the ``observers``, each on a thread of its own.

        If more than ``limit`` events wait for an observer, it gets fewer: see `Mailbox`. At the
        end, an observer whose call has not returned for ``stuck_after`` seconds is abandoned.
        """
        self._limit = limit
        self._stuck_after = stuck_after
        self._lock = threading.Lock()
        self._mailboxes: list[Mailbox[_Event]] = []
        self._at_end: list[Callable[[], None]] = []
        self._closed = False
        for observer in observers:
            self.attach(observer)

    def attach(self, observer: Callable[[_Event], None]) -> None:
        """Also call ``observer`` from now on. Any thread may call this, at any time."""
        with self._lock:
            self._add(Mailbox(observer, self._limit))

    def _add(self, mailbox: Mailbox[_Event]) -> None:
        if self._closed:
            mailbox.end()
        else:
            self._mailboxes.append(mailbox)

    def emit(self, event: _Event) -> None:
        """Deliver ``event``. Never blocks; any thread may call it, even with a lock held."""
        with self._lock:
            for mailbox in self._mailboxes:
                mailbox.put(event)

    def at_end(self, act: Callable[[], None]) -> None:
        """Call ``act`` once the bus ends, and every event has been delivered."""
        self._at_end.append(act)

    def close(self) -> None:
        """Wait until every event has been delivered, then end. Idempotent.

        An observer whose call does not return is named in the log, and abandoned.
        """
        with self._lock:
            mailboxes, self._mailboxes, self._closed = self._mailboxes, [], True
        for mailbox in mailboxes:
            mailbox.end()
        for mailbox in mailboxes:
            mailbox.join(self._stuck_after)
        while self._at_end:
            self._at_end.pop()()


class WorkerBus(_Bus[WorkerEvent]):
    """A worker's events. A late observer gets only what happens from then on."""

    @classmethod
    def of(cls, observers: Sequence[WorkerObserver] | WorkerBus) -> WorkerBus:
        """Return a bus with these ``observers``; a bus is returned unchanged."""
        return observers if isinstance(observers, WorkerBus) else cls(observers)


class EventBus(_Bus[RunEvent]):
    """A run's events. A late observer first gets what it missed, and nothing twice."""

    def __init__(
        self,
        observers: Sequence[Observer] = (),
        *,
        limit: int = _LIMIT,
        stuck_after: float = _STUCK_AFTER,
    ) -> None:
        """Start as any bus does."""
        self._so_far = RunSoFar()
        super().__init__(observers, limit=limit, stuck_after=stuck_after)

    @classmethod
    def of(cls, observers: Sequence[Observer] | EventBus) -> EventBus:
        """Return a bus with these ``observers``; a bus is returned unchanged."""
        return observers if isinstance(observers, EventBus) else cls(observers)

    def attach(self, observer: Observer) -> None:
        """Also call ``observer``. Any thread may call this, at any time.

        During a run it first gets what it missed: the run's start, how each round closed, the
        latest state of every client and connection, and all of the open round; if the run has a
        journal, also each client's outcome in past rounds as far as the journal knows (outcomes and
        reasons, but not seconds, examples and metrics of replies).
        """
        with self._lock:
            past = PastRounds(lambda: self._so_far.folder)
            mailbox: Mailbox[RunEvent] = Mailbox(observer, self._limit, past)
            for event in self._so_far:
                mailbox.put(event, is_past=True)
            self._add(mailbox)

    def emit(self, event: RunEvent) -> None:
        """Deliver ``event`` as any bus does."""
        with self._lock:
            self._so_far.add(event)
            for mailbox in self._mailboxes:
                mailbox.put(event)
