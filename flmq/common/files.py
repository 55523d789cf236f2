"""Files and folders that only their owner can read, and that are complete after a crash, or absent.

Models, replies and client properties are private, so files created here have mode 0600, and folders
0700; existing ones keep their mode. On systems without such modes, a file is as private as the
folder above it.
"""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

__all__ = [
    "FILE_MODE",
    "TEMPORARY",
    "append_private",
    "create_private",
    "folder_bytes",
    "fsync_file",
    "fsync_folder",
    "make_folder",
    "move",
    "remove_temporaries",
    "replacing",
    "temporary_of",
]

FILE_MODE = 0o600
TEMPORARY = ".tmp"
"""Suffix of files that are not complete yet."""
_FOLDER_MODE = 0o700
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)
# Without it, Windows translates line endings.
_BINARY = getattr(os, "O_BINARY", 0)
_FOLDERS_OPEN = hasattr(os, "O_DIRECTORY")


def folder_bytes(folder: Path) -> int:
    """Return how many bytes the files below ``folder`` have, as far as it can be read.

    Blocks: a look at each file. What changes meanwhile is counted or not.
    """
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(parent, name)).st_size  # noqa: PTH118  in haste
    return total


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
def replacing(path: Path, *, tidy: bool = False) -> Iterator[BinaryIO]:
    """Write a new file, in a temporary one beside it, that replaces ``path`` at the end.

    After a crash, ``path`` is the old file or the new one, complete; after an error the old one.
    Missing folders are created. With ``tidy``, temporary files of ``path`` that processes left
    which were killed are removed; it lists the folder.
    """
    make_folder(path.parent)
    if tidy:
        remove_temporaries(path.parent, path.name, of_dead=True)
    temporary = temporary_of(path)
    try:
        with create_private(temporary) as file:
            yield file
        move(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return a new name beside ``path``, for the file that is to replace it."""
    return path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}{TEMPORARY}")


def remove_temporaries(folder: Path, name: str = "", *, of_dead: bool = False) -> None:
    """Remove the temporary files in ``folder``, of the file ``name`` if given.

    With ``of_dead``, only those of processes of this machine that are no more.
    """
    for path in folder.glob(f"{glob.escape(name)}*{TEMPORARY}"):
        owner = path.name.split(".")[-3:-2]
        if not of_dead or (owner and owner[0].isdigit() and not _lives(int(owner[0]))):
            path.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    if os.name == "nt":
        return True  # there os.kill does not ask, it kills
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


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
