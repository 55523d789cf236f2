"""Files that are there whole after a crash, or not at all: write, fsync, rename, fsync again."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from flmq.journal.errors import JournalNotWritable

__all__ = [
    "TEMPORARY",
    "fsync_file",
    "fsync_folder",
    "make_folder",
    "move",
    "remove_temporaries",
    "replace",
    "writing",
]

TEMPORARY = ".tmp"
"""How the name of a file ends that is not whole yet."""


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what the system says against writing ``path`` into `JournalNotWritable`."""
    try:
        yield
    except OSError as error:
        raise JournalNotWritable(path, error.strerror or str(error)) from error


def make_folder(path: Path) -> None:
    """Make ``path`` and what is missing above it, durably."""
    with writing(path):
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        path.mkdir(parents=True, exist_ok=True)
        for folder in missing:
            fsync_folder(folder.parent)


def replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Put a file of ``parts`` at ``path``: after a crash the old is there, or the new.

    Raises:
        JournalNotWritable: it cannot be; the old is there.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    with writing(path):
        try:
            _write(temporary, parts)
            temporary.replace(path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise
        fsync_folder(path.parent)


def move(source: Path, target: Path) -> None:
    """Make ``source`` durable and rename it to ``target``, on the same file system.

    Raises:
        JournalNotWritable: it cannot be moved.
    """
    with writing(target):
        fsync_file(source)
        source.replace(target)
        fsync_folder(target.parent)


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Remove what writers that died left half-written in ``folder``, of files ``name`` if given."""
    with writing(folder):
        for path in folder.glob(f"{name}*{TEMPORARY}"):
            path.unlink(missing_ok=True)


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


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(handle, view) :]
        os.fsync(handle)
    finally:
        os.close(handle)
