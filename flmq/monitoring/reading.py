"""Read what may take long for a scrape that may not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping

from flmq.common.errors import FlmqError
from flmq.common.logger import logger

__all__ = ["PatientReading"]

_EVERY = 10.0
_OLDEST = 120.0


class PatientReading:
    """Values that are read at most every few seconds, on a thread of their own. Thread-safe.

    Who asks waits a moment for a new reading, and gets the last one if none comes: a broker that
    does not answer holds up no scrape. What is too old is not shown at all.
    """

    def __init__(
        self,
        read: Callable[[], Mapping[str, float]],
        *,
        every: float = _EVERY,
        oldest: float = _OLDEST,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call ``read`` again once its values are ``every`` seconds old.

        Values older than ``oldest`` seconds are no longer returned. ``clock`` gives monotonic
        seconds.
        """
        self._read = read
        self._every = every
        self._oldest = oldest
        self._clock = clock
        self._lock = threading.Lock()
        self._values: Mapping[str, float] = {}
        self._read_at: float | None = None
        self._running: threading.Event | None = None

    def start(self) -> threading.Event | None:
        """Begin to read anew if it is time; return what is set when that is done.

        None: the last values are new enough.
        """
        with self._lock:
            if self._running is not None:
                return self._running
            if self._read_at is not None and self._clock() - self._read_at < self._every:
                return None
            self._running = done = threading.Event()
        threading.Thread(
            target=self._look, args=(done,), name="flmq-metrics-look", daemon=True
        ).start()
        return done

    def values(self, patience: float) -> Mapping[str, float]:
        """Return the newest values; none if there are none, or only old ones.

        New ones are waited for, for at most ``patience`` seconds.
        """
        if (done := self.start()) is not None:
            done.wait(patience)
        with self._lock:
            if self._read_at is None or self._clock() - self._read_at > self._oldest:
                return {}
            return self._values

    def _look(self, done: threading.Event) -> None:
        values: Mapping[str, float] | None = None
        try:
            values = self._read()
        except (FlmqError, OSError) as error:  # closed, refused, or a folder that is gone
            logger.debug("a metric cannot be read: %s", error)
        finally:
            with self._lock:
                self._running = None
                if values is not None:
                    self._values, self._read_at = values, self._clock()
            done.set()
