"""Whether a live process is in charge of a run: a file lock that the system drops with its owner.

It only tells; what keeps a predecessor from writing is the fencing epoch. Several may hold it, for
a stopped predecessor does so until it dies.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from flmq.journal.files import writing

__all__ = ["ChargeMark", "is_in_charge"]

_FILE = "charge.lock"


class ChargeMark:
    """This process's word that it is in charge of a run."""

    def __init__(self, folder: Path) -> None:
        """Give it for the run in ``folder``; raises `JournalNotWritable`."""
        path = folder / _FILE
        with writing(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._handle, fcntl.LOCK_SH)

    def release(self) -> None:
        """Take it back. Idempotent."""
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


def is_in_charge(folder: Path) -> bool:
    """Whether some live process is in charge of the run in ``folder``."""
    try:
        handle = os.open(folder / _FILE, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
