"""Locks between processes, one file each; the operating system releases them when a process dies.

They are those of the library ``filelock``: ``flock`` on Unix, ``LockFileEx`` on Windows.
"""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout

from flmq.common.files import FILE_MODE

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FileLock", "Timeout", "is_held", "process_lock"]


def process_lock(path: Path) -> FileLock:
    """Return a lock, for one process at a time, on the file ``path``; its folder must exist.

    ``acquire(timeout=seconds)`` raises `Timeout`; with ``blocking=False`` at once. A file that
    cannot be written raises OSError.
    """
    return FileLock(path, mode=FILE_MODE, thread_local=False)


def is_held(path: Path) -> bool:
    """Return whether a live process holds the lock ``path``; False if the file cannot be opened."""
    if fcntl is None:
        return _is_taken(path)
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        # Nothing is written, so that it can be asked of a folder that can only be read.
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(file)
    return False


def _is_taken(path: Path) -> bool:
    lock = process_lock(path)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    except OSError:
        return False
    lock.release()
    return False
