"""Whether a run has changed since it was read last, by its files' times and sizes alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from flmq.journal.active_marker import is_in_charge
from flmq.journal.opening import DATABASE
from flmq.observe.eventlog.schema import FILE as EVENTS

__all__ = ["Version", "Versions", "stamp_of", "version_of"]

Version = tuple[object, ...]
"""Equal as long as the files of a run are unchanged."""

_FILES = (DATABASE, f"{DATABASE}-wal", EVENTS, f"{EVENTS}-wal", "history.json")
_LOOK_EVERY = 1.0
"""Seconds between two looks at whether a server lives, which costs more than to look at files."""


def version_of(folder: Path) -> Version:
    """Return what changes whenever a file of the run in ``folder`` does."""
    return tuple(stamp_of(folder / name) for name in _FILES)


def stamp_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes whenever the file at ``path`` does; None: there is none."""
    try:
        status = os.stat(path)  # noqa: PTH116  some ten thousand times an hour
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size


class Versions:
    """The versions of runs with the state of their servers. For one thread.

    A server that is killed changes no file, so it is looked at every second whether those that
    were at work still are.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Know nothing yet; ``clock`` gives seconds."""
        self._clock = clock
        self._known: dict[Path, tuple[Version, bool, float]] = {}

    def of(self, folder: Path) -> Version:
        """Return what changes whenever the run in ``folder`` does, or its server ends."""
        now, files = self._clock(), version_of(folder)
        before, in_charge, looked = self._known.get(folder, ((), True, -_LOOK_EVERY))
        if (in_charge or files != before) and now - looked >= _LOOK_EVERY:
            in_charge, looked = is_in_charge(folder), now
        self._known[folder] = files, in_charge, looked
        return (*files, in_charge)
