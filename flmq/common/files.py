"""Files and folders for their owner alone, and whole after a crash or not there at all.

Models, replies and what clients tell of themselves are nobody else's to read, so what is made here
has mode 0600, in folders of 0700; what a person made before keeps its own. On systems that have no
such modes, it is as private as the folder above it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "FILE_MODE",
    "append_private",
    "create_private",
    "fsync_file",
    "fsync_folder",
    "make_folder",
    "move",
    "replacing",
]

FILE_MODE = 0o600
_FOLDER_MODE = 0o700
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
# Windows turns line ends about in what is not said to be binary.
_BINARY = getattr(os, "O_BINARY", 0)
_FOLDERS_OPEN = hasattr(os, "O_DIRECTORY")


def make_folder(path: Path) -> list[Path]:
    """Make ``path`` and what is missing above it, for its owner alone; returns what was made.

    Raises:
        OSError: it cannot be made, or is no folder.
    """
    made = []
    for folder in (*reversed(path.parents), path):
        if not folder.exists():
            with contextlib.suppress(FileExistsError):  # another process was quicker
                folder.mkdir(mode=_FOLDER_MODE)
                made.append(folder)
    path.mkdir(mode=_FOLDER_MODE, exist_ok=True)  # raises where it is no folder
    return made


def create_private(path: Path) -> BinaryIO:
    """A new file ``path``, open to be written, for its owner alone.

    Raises:
        FileExistsError: there is one.
        OSError: it cannot be made.
    """
    return os.fdopen(_open_private(path, os.O_WRONLY | os.O_EXCL), "wb")


def append_private(path: Path) -> BinaryIO:
    """The file ``path``, open to be added to; one that is made is for its owner alone.

    Raises:
        OSError: it cannot be made or opened.
    """
    return os.fdopen(_open_private(path, os.O_WRONLY | os.O_APPEND), "ab")


def _open_private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | _CLOEXEC | _BINARY, FILE_MODE)


@contextlib.contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """A new file ``temporary``, which is put at ``path`` in the end; both are in one folder.

    After a crash the old file is there, or the new one; after an error the old one. What a killed
    process left at ``temporary`` is removed.
    """
    temporary.unlink(missing_ok=True)
    try:
        with create_private(temporary) as file:
            yield file
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
    _fsync(path, os.O_RDWR)  # as Windows wants it


def fsync_folder(path: Path) -> None:
    """Have the names in ``path`` on the disk; Windows sees to that itself, and opens no folders."""
    if _FOLDERS_OPEN:
        _fsync(path, os.O_RDONLY)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | _CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
