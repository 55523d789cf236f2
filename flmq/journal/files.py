"""The journal's files: whole after a crash, or not there; what prevents that is named."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from flmq.common import files
from flmq.journal.errors import JournalNotWritable

__all__ = [
    "TEMPORARY",
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
            files.fsync_folder(folder.parent)


def replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Put a file of ``parts`` at ``path``: after a crash the old is there, or the new.

    Raises:
        JournalNotWritable: it cannot be; the old is there.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    with writing(path), files.replacing(path, temporary):
        _write(temporary, parts)


def move(source: Path, target: Path) -> None:
    """Make ``source`` durable and rename it to ``target``, on the same file system.

    Raises:
        JournalNotWritable: it cannot be moved.
    """
    with writing(target):
        files.move(source, target)


def remove_temporaries(folder: Path, name: str = "") -> None:
    """Remove what writers that died left half-written in ``folder``, of files ``name`` if given."""
    with writing(folder):
        for path in folder.glob(f"{name}*{TEMPORARY}"):
            path.unlink(missing_ok=True)


def _write(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        for part in parts:
            view = memoryview(part).cast("B")
            while view:
                view = view[os.write(handle, view) :]
    finally:
        os.close(handle)
