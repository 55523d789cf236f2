"""Locks between processes, a file for each; the system drops them with their holder.

They are those of the library ``filelock``: ``flock`` on Unix, ``LockFileEx`` on Windows.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from flmq.common.files import FILE_MODE

__all__ = ["FileLock", "Timeout", "is_held", "process_lock"]


def process_lock(path: Path) -> FileLock:
    """A lock that one process at a time has, by the file ``path``; its folder must be there.

    ``acquire(timeout=seconds)`` raises `Timeout`; with ``blocking=False`` at once. What cannot be
    written is an OSError.
    """
    return FileLock(path, mode=FILE_MODE, thread_local=False)


def is_held(path: Path) -> bool:
    """Whether some live process has the lock ``path``; one that cannot be looked at is not."""
    lock = process_lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
