"""Replace files atomically: readers see the old file or the new one, even after a crash."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from flmq.common import files

__all__ = ["replacing"]


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a new file for writing that replaces ``path`` at the end, durably.

    Its folder is created if needed. Leftovers of killed processes are removed.
    """
    files.make_folder(path.parent)
    _sweep(path)
    temporary = _temporary(path, str(os.getpid()))
    with files.replacing(path, temporary) as file:
        yield file


def _temporary(path: Path, owner: str) -> Path:
    return path.with_name(f".{path.name}.{owner}.tmp")


def _sweep(path: Path) -> None:
    for left in path.parent.glob(_temporary(path, "*").name):
        owner = left.name.split(".")[-2]
        if owner.isdigit() and not _lives(int(owner)):
            left.unlink(missing_ok=True)


def _lives(pid: int) -> bool:
    if os.name == "nt":
        return True  # on Windows, os.kill does not ask, it kills
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
