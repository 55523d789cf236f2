"""The way of run events to their observers: in order, on one thread that nothing waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from queue import SimpleQueue

from flmq.common.logger import logger
from flmq.observe.events import Observer, RunEvent

__all__ = ["EventBus"]


_STUCK_AFTER = 10.0
"""Seconds in one call after which an observer is not waited for any more, at the end."""


class EventBus:
    """Hands each event to every observer, one at a time and in the order of `emit`."""

    def __init__(
        self, observers: Sequence[Observer] = (), *, stuck_after: float = _STUCK_AFTER
    ) -> None:
        """Start the thread that calls the ``observers``."""
        self._observers = tuple(observers)
        self._stuck_after = stuck_after
        self._events: SimpleQueue[RunEvent | None] = SimpleQueue()
        self._call: tuple[Observer, RunEvent, float] | None = None
        """What is being called, with what, and since when in monotonic seconds."""
        self._thread = threading.Thread(target=self._run, name="flmq-events", daemon=True)
        self._thread.start()

    def emit(self, event: RunEvent) -> None:
        """Queue ``event``. Never blocks; any thread may call it, also with a lock held."""
        self._events.put(event)

    def close(self) -> None:
        """Wait until every event has been observed, then end. Idempotent.

        An observer that does not come back from one of them is named in the log, and left.
        """
        if not self._thread.is_alive():
            return
        self._events.put(None)
        while self._thread.is_alive():
            self._thread.join(min(0.1, self._stuck_after))
            call = self._call
            if call is not None and time.monotonic() - call[2] > self._stuck_after:
                logger.error(
                    "an observer of the run, %s, has not come back from %s for %.0f s and is not "
                    "waited for: what followed was observed by nobody, %d events",
                    _name(call[0]),
                    type(call[1]).__name__,
                    time.monotonic() - call[2],
                    max(0, self._events.qsize() - 1),
                )
                return

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            for observer in self._observers:
                self._call = observer, event, time.monotonic()
                self._tell(observer, event)
            self._call = None

    def _tell(self, observer: Observer, event: RunEvent) -> None:
        what = type(event).__name__
        try:
            observer(event)
        except OSError as error:
            # A full disk, or the like: what to do about it the run's own error says.
            logger.error("an observer of the run could not write on %s: %s", what, error)
        except BaseException:
            # Also sys.exit(): it would end this thread, and nobody would observe anything more.
            logger.exception("an observer of the run, %s, failed on %s", _name(observer), what)


def _name(observer: Observer) -> str:
    """What its author calls it."""
    return getattr(observer, "__qualname__", type(observer).__qualname__)
