"""The way of events to their observers: in order, each on a thread that nothing waits for."""

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
"""Events that wait for an observer at most, by and large: some 50 MB of clients' outcomes."""
_STUCK_AFTER = 10.0
"""Seconds in one call after which an observer is not waited for any more, at the end."""

_Event = TypeVar("_Event")


class _Bus(Generic[_Event]):
    """Hands each event to every observer, in the order of `emit`."""

    def __init__(
        self,
        observers: Sequence[Callable[[_Event], None]] = (),
        *,
        limit: int = _LIMIT,
        stuck_after: float = _STUCK_AFTER,
    ) -> None:
        """Begin to call the ``observers``, each on a thread of its own.

        Where more than ``limit`` events wait for one of them, it is told less: see `Mailbox`. One
        that does not come back from a call for ``stuck_after`` seconds is left behind at the end.
        """
        self._limit = limit
        self._stuck_after = stuck_after
        self._lock = threading.Lock()
        self._mailboxes: list[Mailbox[_Event]] = []
        self._closed = False
        for observer in observers:
            self.attach(observer)

    def attach(self, observer: Callable[[_Event], None]) -> None:
        """Call ``observer`` too, from now on. Any thread may call this, at any time."""
        with self._lock:
            self._add(Mailbox(observer, self._limit))

    def _add(self, mailbox: Mailbox[_Event]) -> None:
        if self._closed:
            mailbox.end()
        else:
            self._mailboxes.append(mailbox)

    def emit(self, event: _Event) -> None:
        """Have ``event`` observed. Never blocks; any thread may call it, also with a lock held."""
        with self._lock:
            for mailbox in self._mailboxes:
                mailbox.put(event)

    def close(self) -> None:
        """Wait until every event has been observed, then end. Idempotent.

        An observer that does not come back from one of them is named in the log, and left.
        """
        with self._lock:
            mailboxes, self._mailboxes, self._closed = self._mailboxes, [], True
        for mailbox in mailboxes:
            mailbox.end()
        for mailbox in mailboxes:
            mailbox.join(self._stuck_after)


class WorkerBus(_Bus[WorkerEvent]):
    """A worker's events. Who comes late is told what happens from then on."""

    @classmethod
    def of(cls, observers: Sequence[WorkerObserver] | WorkerBus) -> WorkerBus:
        """A bus with these ``observers``; one that is a bus already is taken as it is."""
        return observers if isinstance(observers, WorkerBus) else cls(observers)


class EventBus(_Bus[RunEvent]):
    """A run's events. Who comes late is told first what it missed, and nothing twice."""

    def __init__(
        self,
        observers: Sequence[Observer] = (),
        *,
        limit: int = _LIMIT,
        stuck_after: float = _STUCK_AFTER,
    ) -> None:
        """As of any bus."""
        self._so_far = RunSoFar()
        super().__init__(observers, limit=limit, stuck_after=stuck_after)

    @classmethod
    def of(cls, observers: Sequence[Observer] | EventBus) -> EventBus:
        """A bus with these ``observers``; one that is a bus already is taken as it is."""
        return observers if isinstance(observers, EventBus) else cls(observers)

    def attach(self, observer: Observer) -> None:
        """Call ``observer`` too. Any thread may call this, at any time.

        In mid-run it is told first what it missed: the run's start, how each round closed, the
        last of every client and connection, and all of the round that is open; where the run has
        a journal, also what became of each client in the rounds that are over, as far as the
        journal knows (outcomes and reasons; of replies no seconds, examples and metrics).
        """
        with self._lock:
            past = PastRounds(lambda: self._so_far.folder)
            mailbox: Mailbox[RunEvent] = Mailbox(observer, self._limit, past)
            for event in self._so_far:
                mailbox.put(event, is_past=True)
            self._add(mailbox)

    def emit(self, event: RunEvent) -> None:
        """As of any bus."""
        with self._lock:
            self._so_far.add(event)
            for mailbox in self._mailboxes:
                mailbox.put(event)
