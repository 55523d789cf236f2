"""The journal's files: whole after a crash, or not there; what prevents that is named."""

from __future__ import annotations

import contextlib
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
        for folder in files.make_folder(path):
            files.fsync_folder(folder.parent)


def replace(path: Path, parts: Iterable[bytes | memoryview]) -> None:
    """Put a file of ``parts`` at ``path``: after a crash the old is there, or the new.

    Raises:
        JournalNotWritable: it cannot be; the old is there.
    """
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}{TEMPORARY}")
    with writing(path), files.replacing(path, temporary) as file:
        for part in parts:
            file.write(part)


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
