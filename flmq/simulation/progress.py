"""A line on standard error that says how far a simulation is.

Plain text and a carriage return, as notebooks understand them too; the log's lines stand above it.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import mean
from typing import TextIO

from flmq.common.durations import clock_text
from flmq.common.logger import logger
from flmq.observe.events import (
    ClientOutcome,
    ClientsAwaited,
    Outcome,
    Phase,
    PhaseOpened,
    RoundClosed,
    RunEvent,
    RunStarted,
)

__all__ = ["HowFar", "ProgressLine", "is_wanted"]

_EVERY = 0.2
"""Seconds between two looks."""
_BAR = 20
_BY = 5
"""Rounds closed last, by which those to come are measured."""
_FAILED = (Outcome.FAILED, Outcome.REJECTED, Outcome.UNROUTABLE)


def is_wanted(progress: bool | None, stream: TextIO) -> bool:
    """Return whether to show a line: as asked, or where a person sees it."""
    if progress is None:
        return stream.isatty() or "ipykernel" in sys.modules
    return progress


class HowFar:
    """How far a run is, by its events. For one thread at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Measure by ``clock``, in seconds."""
        self._clock = clock
        self._rounds = self._closed = 0
        self._awaited: ClientsAwaited | None = None
        self._phase: Phase | None = None
        self._asked = self._answered = self._failed = 0
        self._round_since = self._phase_since = clock()
        self._took: deque[float] = deque(maxlen=_BY)

    def __call__(self, event: RunEvent) -> None:
        """Take ``event`` into account."""
        match event:
            case RunStarted():
                self._rounds, self._closed = event.num_rounds, len(event.earlier)
            case ClientsAwaited():
                self._awaited = event
            case PhaseOpened() if event.phase in (Phase.FIT, Phase.EVALUATE):
                self._open(event)
            case ClientOutcome() if event.phase is self._phase:
                self._count(event.outcome)
            case RoundClosed():
                self._closed = event.server_round
                self._took.append(self._clock() - self._round_since)
                self._phase, self._round_since = None, self._clock()

    def text(self) -> str:
        """Return the line, without an end."""
        if self._awaited is not None:
            return f"waiting for clients: {self._awaited.online:,} of {self._awaited.needed:,}"
        current = min(self._closed + 1, self._rounds)
        parts = [f"round {current} of {self._rounds} {self._bar()}"]
        if self._phase is not None:
            parts.append(f"{self._phase.value}: {self._answered:,} of {self._asked:,} replied")
            parts += [f"{self._failed:,} failed"] if self._failed else []
        left = self._left()
        parts += [] if left is None else [f"{_duration(left)} left"]
        return ", ".join(parts)

    def _open(self, opened: PhaseOpened) -> None:
        self._awaited = None
        if self._phase is None:
            self._round_since = self._clock()
        self._phase, self._asked = opened.phase, len(opened.asked)
        self._answered = self._failed = 0
        self._phase_since = self._clock()

    def _count(self, outcome: Outcome) -> None:
        self._answered += outcome in (Outcome.ACCEPTED, Outcome.FAILED, Outcome.REJECTED)
        self._failed += outcome in _FAILED

    def _bar(self) -> str:
        here = self._answered / self._asked if self._phase and self._asked else 0.0
        done = round(_BAR * min(1.0, (self._closed + here) / max(1, self._rounds)))
        return f"[{'#' * done}{'.' * (_BAR - done)}]"

    def _left(self) -> float | None:
        """Return the seconds to the end: by the last rounds, in the first one by its replies."""
        to_come = self._rounds - self._closed
        if self._took:
            return max(0.0, mean(self._took) * to_come - (self._clock() - self._round_since))
        if not self._answered or self._phase is None:
            return None
        spent = self._clock() - self._phase_since
        return spent * (self._asked / self._answered * to_come - 1)


class ProgressLine:
    """Show `HowFar` on a stream while a run lasts. An observer."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Write to ``stream``."""
        self._stream = stream
        self._how_far = HowFar(clock)
        self._lock = threading.RLock()
        self._shown = ""
        self._over = threading.Event()

    def __call__(self, event: RunEvent) -> None:
        """Take ``event`` into account; it is seen at the next look."""
        with self._lock:
            self._how_far(event)

    @contextmanager
    def shown(self) -> Iterator[None]:
        """Show the line meanwhile, below the lines of the log."""
        above = _Above(self.erase)
        logger.handlers.insert(0, above)
        thread = threading.Thread(target=self._look, name="flmq-progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._over.set()
            thread.join()
            logger.removeHandler(above)
            self.erase()

    def erase(self) -> None:
        """Leave nothing of the line, so that something else may be written."""
        with self._lock:
            if self._shown:
                self._write(" " * len(self._shown) + "\r")
                self._shown = ""

    def _look(self) -> None:
        while not self._over.wait(_EVERY):
            with self._lock:
                width = shutil.get_terminal_size().columns - 1
                text = self._how_far.text()[:width]
                if text != self._shown:
                    self._write(text.ljust(len(self._shown)) + "\r")
                    self._shown = text

    def _write(self, text: str) -> None:
        try:
            self._stream.write(text)
            self._stream.flush()
        except (OSError, ValueError):  # the terminal is gone: the run is not
            self._over.set()


class _Above(logging.Handler):
    """Makes room for a line of the log, before others write it."""

    def __init__(self, erase: Callable[[], None]) -> None:
        super().__init__()
        self._erase = erase

    def emit(self, record: logging.LogRecord) -> None:
        self._erase()


def _duration(seconds: float) -> str:
    """Return "7 s", "3:05" or "2:03:05"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else clock_text(whole)
