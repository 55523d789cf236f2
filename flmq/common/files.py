"""Files that are there whole after a crash, or not at all: write, fsync, rename, fsync again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["fsync_file", "fsync_folder", "move", "replacing"]


@contextlib.contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[None]:
    """Put what is written to ``temporary`` meanwhile at ``path``; both are in one folder.

    After a crash the old file is there, or the new one; after an error the old one.
    """
    try:
        yield
        move(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def move(source: Path, target: Path) -> None:
    """Make ``source`` durable and rename it to ``target``, on the same file system."""
    fsync_file(source)
    source.replace(target)
    fsync_folder(target.parent)


def fsync_file(path: Path) -> None:
    """Have the bytes of ``path`` on the disk."""
    _fsync(path, os.O_RDONLY)


def fsync_folder(path: Path) -> None:
    """Have the names in ``path`` on the disk."""
    _fsync(path, os.O_RDONLY | os.O_DIRECTORY)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
