"""Recognize errors of a system that has run out of resources, which are no damage of a file."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator
from pathlib import Path

from flmq.common.errors import RunError

__all__ = ["SystemExhausted", "cause_of", "unless_exhausted"]

_ADVICE = {
    errno.EMFILE: "this process has as many files open as it may: raise its limit (ulimit -n)",
    errno.ENFILE: "this machine has as many files open as it may: raise fs.file-max",
    errno.ENOMEM: "there is no memory to map it, or there are too many mappings: free memory, or "
    "raise vm.max_map_count",
}


class SystemExhausted(RunError):
    """A file cannot be opened or mapped now, for lack of descriptors or memory."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Name the file and the exhausted resource."""
        self.path = path
        self.errno = error.errno
        super().__init__(
            f"{path}: cannot be opened: {cause_of(error)}. Nothing is wrong with the file: start "
            "again to go on"
        )


def cause_of(error: OSError) -> str:
    """Return the system's message, and what to do if it has run out of something."""
    said = error.strerror or str(error)
    advice = _ADVICE.get(error.errno or 0)
    return said if advice is None else f"{said} ({advice})"


@contextlib.contextmanager
def unless_exhausted(path: Path) -> Iterator[None]:
    """Pass errors of reading ``path`` through, except those that do not concern the file.

    Raises:
        SystemExhausted: the process, or the machine, has no more descriptors or memory.
    """
    try:
        yield
    except OSError as error:
        if error.errno in _ADVICE:
            raise SystemExhausted(path, error) from error
        raise
