"""The way of run events to their observers: in order, on one thread that nothing waits for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from queue import SimpleQueue

from flmq.common.logger import logger
from flmq.server.events import Observer, RunEvent

__all__ = ["EventBus"]


class EventBus:
    """Hands each event to every observer, one at a time and in the order of `emit`."""

    def __init__(self, observers: Sequence[Observer] = ()) -> None:
        """Start the thread that calls the ``observers``."""
        self._observers = tuple(observers)
        self._events: SimpleQueue[RunEvent | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="flmq-events", daemon=True)
        self._thread.start()

    def emit(self, event: RunEvent) -> None:
        """Queue ``event``. Never blocks; any thread may call it, also with a lock held."""
        self._events.put(event)

    def close(self) -> None:
        """Wait until every event has been observed, then end. Idempotent."""
        if self._thread.is_alive():
            self._events.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (event := self._events.get()) is not None:
            for observer in self._observers:
                try:
                    observer(event)
                except OSError as error:
                    # A full disk, or the like: what to do about it the run's own error says.
                    what = type(event).__name__
                    logger.error("an observer of the run could not write on %s: %s", what, error)
                except Exception:
                    logger.exception("an observer of the run failed on %s", type(event).__name__)
