"""Check a client's folders before it starts: name one that is not writable at once."""

from __future__ import annotations

import tempfile
from pathlib import Path

from flmq.common.errors import UsageError
from flmq.common.files import make_folder

__all__ = ["ClientFolderNotWritable", "check_folder"]


class ClientFolderNotWritable(UsageError):
    """A folder of the client cannot be created or written."""

    def __init__(self, folder: Path, option: str, error: OSError) -> None:
        """Name the folder, the cause, and the ``option`` that sets another one."""
        self.folder = folder
        super().__init__(
            f"{folder}: cannot be written: {error.strerror or error}. See to space and permissions "
            f"there, or give another folder with {option}"
        )


def check_folder(folder: Path, option: str) -> None:
    """Create ``folder`` if needed, and check that it is writable.

    Raises:
        ClientFolderNotWritable: it cannot be created, or nothing can be written in it.
    """
    try:
        make_folder(folder)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"\0")
    except OSError as error:
        raise ClientFolderNotWritable(folder, option, error) from error
