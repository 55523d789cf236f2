"""Locks between processes, one file each; the operating system releases them when a process dies.

They are those of the library ``filelock``: ``flock`` on Unix, ``LockFileEx`` on Windows.
"""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock, Timeout

from flmq.common.files import FILE_MODE

__all__ = ["FileLock", "Timeout", "is_held", "process_lock"]


def process_lock(path: Path) -> FileLock:
    """Return a lock, for one process at a time, on the file ``path``; its folder must exist.

    ``acquire(timeout=seconds)`` raises `Timeout`; with ``blocking=False`` at once. A file that
    cannot be written raises OSError.
    """
    return FileLock(path, mode=FILE_MODE, thread_local=False)


def is_held(path: Path) -> bool:
    """Return whether a live process holds the lock ``path``; False if the file cannot be opened."""
    lock = process_lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
