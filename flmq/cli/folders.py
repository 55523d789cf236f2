"""A run's folder as commands use it: if it is not writable, say so in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flmq.common.errors import RunError

__all__ = ["RunFolderNotWritable", "writing_run"]


class RunFolderNotWritable(RunError):
    """The run's folder cannot be created or written."""

    def __init__(self, folder: Path, error: OSError) -> None:
        """Name the folder and the cause."""
        self.folder = folder
        super().__init__(
            f"{folder}: cannot be written: {error.strerror or error}. See to space and permissions "
            "there, or give another folder with --runs-dir"
        )


@contextmanager
def writing_run(folder: Path) -> Iterator[None]:
    """Convert OSErrors of writing ``folder`` to `RunFolderNotWritable`."""
    try:
        yield
    except OSError as error:
        raise RunFolderNotWritable(folder, error) from error
