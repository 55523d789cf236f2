"""Whether a live process is in charge of a run: a file lock that the system drops with its owner.

It only tells; what keeps a predecessor from writing is the fencing epoch. Each server has a file of
its own, named by its epoch, for a stopped predecessor holds its lock until it dies.
"""

from __future__ import annotations

from pathlib import Path

from flmq.common.locks import is_held, process_lock
from flmq.journal.files import writing

__all__ = ["ActiveMarker", "is_in_charge"]

_FILES = "charge*.lock"
_PATIENCE = 5.0
"""Seconds for somebody who just looks whether we hold it."""


class ActiveMarker:
    """This process's word that it is in charge of a run."""

    def __init__(self, folder: Path, epoch: int) -> None:
        """Give it for the run in ``folder``; raises `JournalNotWritable`."""
        self._path = folder / f"charge.{epoch}.lock"
        for left in folder.glob(_FILES):
            if not is_held(left):
                left.unlink(missing_ok=True)
        with writing(self._path):
            self._lock = process_lock(self._path)
            self._lock.acquire(timeout=_PATIENCE)

    def release(self) -> None:
        """Take it back. Idempotent."""
        self._lock.release()


def is_in_charge(folder: Path) -> bool:
    """Whether some live process is in charge of the run in ``folder``."""
    return any(is_held(path) for path in folder.glob(_FILES))
