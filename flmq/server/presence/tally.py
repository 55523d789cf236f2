"""Count what is dropped, by its reason, and report it once a minute: a flood is one line."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from flmq.common.logger import logger
from flmq.observe.events import Note, RunEvent

__all__ = ["Tally"]

_REPORT_EVERY = 60.0
"""Seconds between two reports of what was dropped for the same reason."""
_SHOWN = 5
"""Maximum number of names in a report."""


@dataclass(slots=True)
class _Dropped:
    """What was dropped for one reason since the last report of it."""

    count: int = 0
    names: list[str] = field(default_factory=list)
    """The first few."""
    reported: float | None = None
    """When the last report was made, in monotonic seconds; None if none was."""


class Tally:
    """Counts what one job drops. Thread-safe."""

    def __init__(
        self,
        job: str,
        what: str,
        emit: Callable[[RunEvent], None],
        clock: Callable[[], float],
    ) -> None:
        """Report in words that begin with ``what``: "hellos were dropped: their clients".

        ``emit`` takes a note for the run's observers; ``clock`` gives monotonic seconds.
        """
        self._job = job
        self._what = what
        self._emit = emit
        self._clock = clock
        self._lock = threading.Lock()
        self._dropped: dict[str, _Dropped] = {}

    def drop(self, name: str, reason: str, count: int = 1) -> None:
        """Count ``count`` dropped for ``reason``, of which one is named, for the next report."""
        with self._lock:
            dropped = self._dropped.setdefault(reason, _Dropped())
            dropped.count += count
            if len(dropped.names) < _SHOWN and name not in dropped.names:
                dropped.names.append(name)

    def tick(self) -> None:
        """Report what was dropped, once a minute. Call it about every second."""
        with self._lock:
            now = self._clock()
            due = [
                (reason, dropped)
                for reason, dropped in self._dropped.items()
                if dropped.count
                and (dropped.reported is None or now - dropped.reported >= _REPORT_EVERY)
            ]
            for reason, _ in due:
                self._dropped[reason] = _Dropped(reported=now)
        for reason, dropped in due:
            more = ", ..." if dropped.count > len(dropped.names) == _SHOWN else ""
            names = ", ".join(dropped.names) + more
            line = f"{dropped.count} {self._what} {reason} ({names})"
            logger.warning("job %s: %s", self._job, line)
            self._emit(Note(line))
