"""The events waiting for one observer: in order, bounded, delivered on a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Generic, Protocol, TypeVar, cast

from flmq.common.errors import FlmqError
from flmq.common.logger import logger
from flmq.observe.events import (
    BufferChanged,
    ClientOutcome,
    ClientPresence,
    ClientsAwaited,
    EventsDropped,
    PhaseClosed,
    PhaseOpened,
    ReceiptCame,
    ReplySent,
    RoundClosed,
    RunEvent,
    TaskReceived,
    TrainingEnded,
    TrainingStarted,
)
from flmq.observe.remarks import counted

__all__ = ["Mailbox", "Past", "detail_of", "state_of"]

_Event = TypeVar("_Event")
_TOGETHER = 0.01
"""Seconds in which events come together, once the first has come."""
_BY_TASK = (
    ClientOutcome,
    TaskReceived,
    TrainingStarted,
    TrainingEnded,
    ReplySent,
    ReceiptCame,
)
"""Events whose number is not bounded by rounds: some for each client and task."""


class Past(Protocol):
    """Source of the details of past rounds."""

    @property
    def is_known(self) -> bool:
        """Return whether details can be read."""

    def details(self, closed: RoundClosed) -> Iterable[RunEvent]:
        """Return all events of a round between its beginning and its end."""


class Mailbox(Generic[_Event]):
    """The events that wait for one observer. `put` never blocks, however long the observer does.

    If more than ``limit`` wait, some are dropped, in this order:

    1. presence of clients, waiting for clients, and states of a buffer: all but the latest of each;
    2. all details of rounds of which the observer has seen nothing yet, if a journal has them:
       they are read from it when such a round is over;
    3. the oldest outcomes of clients, and the oldest events of a worker's tasks.

    Events dropped for good are counted, in the log and in an `EventsDropped` for the observer.
    Closings of rounds and phases, notes, connections and ends are never dropped: they are few.

    An observer that has a tuple of types as ``wanted_events`` gets events of these alone.
    """

    def __init__(
        self,
        observer: Callable[[_Event], None],
        limit: int,
        past: Past | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Deliver to ``observer``, on a thread that starts now; ``past`` reads the journal."""
        self._observer = observer
        self._wanted: tuple[type, ...] = getattr(observer, "wanted_events", (object,))
        self._past = past
        self._clock = clock
        self._limit = self._thin_at = limit
        self._changed = threading.Condition()
        self._waiting: deque[_Event] = deque()
        self._is_idle = self._is_ending = False
        self._retold: set[int] = set()
        """Rounds whose details do not wait here: they are delivered with the round's end."""
        self._begun: set[int] = set()
        """Rounds of which the observer has seen some details, but not the end."""
        self._dropped: Counter[str] = Counter()
        self._call: tuple[str, float] | None = None
        """The event being delivered, and since when (monotonic seconds)."""
        self._thread = threading.Thread(target=self._run, name="flmq-events", daemon=True)
        self._thread.start()

    def put(self, event: _Event, *, is_past: bool = False) -> None:
        """Queue an event for the observer. Any thread may call it, even with a lock held.

        If it ``is_past``, details of past rounds did not come here before it.
        """
        if not isinstance(event, self._wanted):
            return
        with self._changed:
            if is_past and isinstance(event, RoundClosed) and self._has_past:
                self._retold.add(event.server_round)
            if self._retold and detail_of(event) in self._retold:
                return
            self._waiting.append(event)
            if len(self._waiting) > self._thin_at:
                self._thin()
            if self._is_idle:
                self._is_idle = False
                self._changed.notify()

    def end(self) -> None:
        """Deliver what waits, and then stop. Idempotent."""
        with self._changed:
            self._is_ending = True
            self._changed.notify()

    def join(self, stuck_after: float) -> None:
        """Wait until all is delivered, unless a call takes longer than ``stuck_after`` seconds."""
        while self._thread.is_alive():
            self._thread.join(min(0.1, stuck_after))
            call = self._call
            if call is not None and self._clock() - call[1] > stuck_after:
                logger.error(
                    "an observer of the run, %s, has not come back from %s for %.0f s and is not "
                    "waited for: it is not told what followed, %d events",
                    self._name,
                    call[0],
                    self._clock() - call[1],
                    len(self._waiting) + self._dropped.total(),
                )
                return

    # -- too much ----------------------------------------------------------------------------

    def _thin(self) -> None:
        """Drop events as the class describes, down to three quarters of the limit if possible."""
        most = self._limit * 3 // 4
        self._keep_last_states()
        if self._has_past:
            self._leave_to_the_journal(most)
        self._drop_oldest(sum(isinstance(each, _BY_TASK) for each in self._waiting) - most)
        # If everything left must stay, do not search again at every event.
        self._thin_at = max(self._limit, len(self._waiting) + self._limit // 4)

    def _keep_last_states(self) -> None:
        known: set[tuple[str, ...]] = set()
        kept: deque[_Event] = deque()
        for each in reversed(self._waiting):
            state = state_of(each)
            if state is None or state not in known:
                kept.appendleft(each)
            else:
                self._dropped[type(each).__name__] += 1
            if state is not None:
                known.add(state)
        self._waiting = kept

    def _leave_to_the_journal(self, most: int) -> None:
        """Drop the details of the oldest rounds that the observer has not begun."""
        sizes = Counter(
            number
            for each in self._waiting
            if (number := detail_of(each)) and number not in self._begun
        )
        excess = len(self._waiting) - most
        for number in sorted(sizes):
            if excess <= 0:
                break
            self._retold.add(number)
            excess -= sizes[number]
        self._waiting = deque(each for each in self._waiting if detail_of(each) not in self._retold)

    def _drop_oldest(self, excess: int) -> None:
        kept: deque[_Event] = deque()
        for each in self._waiting:
            if excess > 0 and isinstance(each, _BY_TASK):
                self._dropped[type(each).__name__] += 1
                excess -= 1
            else:
                kept.append(each)
        self._waiting = kept

    # -- telling: the observer's thread ------------------------------------------------------

    def _run(self) -> None:
        while (event := self._next()) is not None:
            if isinstance(event, RoundClosed):
                for each in self._details(event):
                    self._tell(cast(_Event, each))
            self._tell(event)

    def _next(self) -> _Event | None:
        with self._changed:
            if not self._waiting and not self._is_ending:
                self._is_idle = True
                self._changed.wait_for(lambda: self._waiting or self._is_ending)
                # Woken for each of thousands, we would hold up who emits them.
                self._changed.wait_for(lambda: self._is_ending, _TOGETHER)
            if self._dropped:
                return self._say_dropped()
            if not self._waiting:
                return None
            event = self._waiting.popleft()
            self._thin_at = self._limit
            if number := detail_of(event):
                self._begun.add(number)
            return event

    def _say_dropped(self) -> _Event:
        dropped, self._dropped = self._dropped, Counter()
        logger.warning(
            "an observer of the run, %s, is too slow: %d events are left out for it (%s)",
            self._name,
            dropped.total(),
            counted(dropped),
        )
        return cast(_Event, EventsDropped(dict(dropped)))

    def _details(self, closed: RoundClosed) -> Iterable[RunEvent]:
        """Return what was left to the journal of a past round."""
        with self._changed:
            self._begun.discard(closed.server_round)
            if self._past is None or closed.server_round not in self._retold:
                return ()
            self._retold.discard(closed.server_round)
        try:
            return self._past.details(closed)
        except (FlmqError, RuntimeError) as error:
            logger.error(
                "an observer of the run, %s, is not told who did what in round %d: %s",
                self._name,
                closed.server_round,
                error,
            )
            return ()

    @property
    def _has_past(self) -> bool:
        return self._past is not None and self._past.is_known

    def _tell(self, event: _Event) -> None:
        what = type(event).__name__
        self._call = what, self._clock()
        try:
            self._observer(event)
        except OSError as error:
            # A full disk, for example: the run's own error says what to do about it.
            logger.error("an observer of the run could not write on %s: %s", what, error)
        except BaseException:
            # Also sys.exit(): it would end this thread, and the observer be told nothing more.
            logger.exception("an observer of the run, %s, failed on %s", self._name, what)
        self._call = None

    @property
    def _name(self) -> str:
        """What its author calls the observer."""
        return getattr(self._observer, "__qualname__", type(self._observer).__qualname__)


def state_of(event: object) -> tuple[str, ...] | None:
    """Return a key for ``event`` if only the latest event with that key matters, else None."""
    match event:
        case ClientPresence():
            return "presence", event.client_id
        case ClientsAwaited():
            return ("awaited",)
        case BufferChanged():
            return ("buffer",)
    return None


def detail_of(event: object) -> int | None:
    """Return the round of which ``event`` is a detail, which a journal can repeat; else None."""
    match event:
        case PhaseOpened() | PhaseClosed():
            return event.server_round
        case ClientOutcome() if not event.is_straggler:
            return event.server_round
    return None
