"""Files and folders that only their owner can read, and that are complete after a crash, or absent.

Models, replies and client properties are private, so files created here have mode 0600, and folders
0700; existing ones keep their mode. On systems without such modes, a file is as private as the
folder above it.
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
# Without it, Windows translates line endings.
_BINARY = getattr(os, "O_BINARY", 0)
_FOLDERS_OPEN = hasattr(os, "O_DIRECTORY")


def make_folder(path: Path) -> list[Path]:
    """Create ``path`` and missing parents, for the owner alone; return the folders created.

    Raises:
        OSError: it cannot be created, or is not a folder.
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
    """Create the file ``path`` for the owner alone, and open it for writing.

    Raises:
        FileExistsError: it exists already.
        OSError: it cannot be created.
    """
    return os.fdopen(_open_private(path, os.O_WRONLY | os.O_EXCL), "wb")


def append_private(path: Path) -> BinaryIO:
    """Open the file ``path`` for appending; if it is created, for the owner alone.

    Raises:
        OSError: it cannot be created or opened.
    """
    return os.fdopen(_open_private(path, os.O_WRONLY | os.O_APPEND), "ab")


def _open_private(path: Path, flags: int) -> int:
    return os.open(path, flags | os.O_CREAT | _CLOEXEC | _BINARY, FILE_MODE)


@contextlib.contextmanager
def replacing(path: Path, temporary: Path) -> Iterator[BinaryIO]:
    """Write a new file ``temporary`` that replaces ``path`` at the end; both are in one folder.

    After a crash, ``path`` is the old file or the new one, complete; after an error the old one. A
    ``temporary`` left by a killed process is removed.
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
    """Flush ``source`` to disk and rename it to ``target``, on the same file system."""
    fsync_file(source)
    source.replace(target)
    fsync_folder(target.parent)


def fsync_file(path: Path) -> None:
    """Flush the contents of ``path`` to disk."""
    _fsync(path, os.O_RDWR)  # as Windows wants it


def fsync_folder(path: Path) -> None:
    """Flush the names in the folder ``path`` to disk; nothing to do on Windows."""
    if _FOLDERS_OPEN:
        _fsync(path, os.O_RDONLY)


def _fsync(path: Path, flags: int) -> None:
    handle = os.open(path, flags | _CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
