"""Mark a run as active: a file lock that the operating system releases when its owner dies.

It is informative only; the fencing epoch is what keeps a predecessor from writing. Each server
locks a file of its own, named by its epoch, as a suspended predecessor holds its lock until it
dies.
"""

from __future__ import annotations

from pathlib import Path

from flmq.common.locks import is_held, process_lock
from flmq.journal.files import writing

__all__ = ["ActiveMarker", "is_in_charge"]

_FILES = "charge*.lock"
_PATIENCE = 5.0
"""Seconds to wait for another process that briefly takes the lock to see if it is held."""


class ActiveMarker:
    """This process's lock that marks it as in charge of a run."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """Acquire the lock for the run in ``folder``; raises `JournalNotWritable`."""
        self._path = folder / f"charge.{epoch}.lock"
        for left in folder.glob(_FILES):
            if not is_held(left):
                left.unlink(missing_ok=True)
        with writing(self._path):
            self._lock = process_lock(self._path)
            self._lock.acquire(timeout=_PATIENCE)

    def release(self) -> None:
        """Release the lock. Idempotent."""
        self._lock.release()


def is_in_charge(folder: Path) -> bool:
    """Return whether a live process is in charge of the run in ``folder``."""
    return any(is_held(path) for path in folder.glob(_FILES))
