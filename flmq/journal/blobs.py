"""The files beside the database: parameters by digest, and replies' parameters by task.

A file's name determines its content, so writing it twice, or by two servers of which one is no
longer in charge, does no harm. Only the database knows which files are needed.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flmq.common.files import TEMPORARY
from flmq.common.typing import Parameters
from flmq.journal.files import make_folder, move, replace_all, writing
from flmq.journal.mapped import MappedParameters
from flmq.wire import BlobRef

__all__ = ["BLOBS", "REPLIES", "BlobFolder", "ReplyFolder"]

BLOBS = "blobs"
REPLIES = "replies"
_SUFFIX = ".blob"


class BlobFolder:
    """Parameters in files named by their digest."""

    def __init__(self, run: Path) -> None:
        """Use the run's folder ``run``."""
        self.folder = run / BLOBS
        make_folder(self.folder)

    def path(self, digest: str) -> Path:
        """Return the path of the blob, whether or not it exists."""
        return self.folder / f"{digest}{_SUFFIX}"

    def put(self, blobs: Iterable[tuple[BlobRef, Parameters]]) -> None:
        """Write parameters to disk, each under its reference; existing files are left alone.

        Raises:
            JournalNotWritable: some cannot be written.
        """
        replace_all(
            {
                self.path(ref.digest): parameters.tensors
                for ref, parameters in blobs
                if not self._has(ref)
            }
        )

    def _has(self, ref: BlobRef) -> bool:
        path = self.path(ref.digest)
        with writing(path):
            # A file was complete when it was given its name; a wrong length means later damage.
            return path.exists() and path.stat().st_size == ref.total

    def load(self, ref: BlobRef) -> MappedParameters:
        """Return the blob's parameters; raises `JournalDamaged` if they are missing or damaged."""
        return MappedParameters(self.path(ref.digest), ref)

    def sweep(self, needed: Iterable[str]) -> None:
        """Remove every blob whose digest is not in ``needed``."""
        _sweep(self.folder, {self.path(digest).name for digest in needed})


class ReplyFolder:
    """Replies' parameters in files named by task and digest."""

    def __init__(self, run: Path) -> None:
        """Use the run's folder ``run``."""
        self.folder = run / REPLIES
        make_folder(self.folder)

    def path(self, task_id: str, ref: BlobRef) -> Path:
        """Return the path of this reply's parameters, whether or not it exists.

        The digest is part of the name, so that two answers to one task do not overwrite each other,
        even if the second is received by a server that is no longer in charge.
        """
        return self.folder / f"{task_id}.{ref.digest[:16]}"

    def adopt(self, task_id: str, ref: BlobRef, source: Path) -> Path:
        """Take over the file ``source`` durably; raises `JournalNotWritable`."""
        path = self.path(task_id, ref)
        move(source, path)
        return path

    def load(self, task_id: str, ref: BlobRef) -> MappedParameters:
        """Return the reply's parameters; raises `JournalDamaged` if missing or damaged."""
        return MappedParameters(self.path(task_id, ref), ref)

    def sweep(self, needed: Iterable[Path]) -> None:
        """Remove every file that is not in ``needed``."""
        _sweep(self.folder, {path.name for path in needed})


def _sweep(folder: Path, needed: set[str]) -> None:
    with writing(folder):
        for path in folder.iterdir():
            # A partial file may belong to somebody who is just writing it.
            if path.name not in needed and path.suffix != TEMPORARY:
                path.unlink(missing_ok=True)
