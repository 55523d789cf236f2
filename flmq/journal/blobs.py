"""The files beside the database: parameters by digest, and replies' parameters by task.

A file's name says what is in it, so writing it twice, or by two servers of which one is no longer
in charge, does no harm. Which files are needed is known to the database alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from flmq.common.typing import Parameters
from flmq.journal.files import TEMPORARY, make_folder, move, replace, writing
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
        """Where the blob is, or would be."""
        return self.folder / f"{digest}{_SUFFIX}"

    def put(self, ref: BlobRef, parameters: Parameters) -> Path:
        """Have ``parameters`` on the disk; their file is left alone if it is there.

        Raises:
            JournalNotWritable: they cannot be written.
        """
        path = self.path(ref.digest)
        with writing(path):
            # What bears its name was complete when it got it; a wrong length was done to it later.
            there = path.exists() and path.stat().st_size == ref.total
        if not there:
            replace(path, parameters.tensors)
        return path

    def load(self, ref: BlobRef) -> MappedParameters:
        """The blob's parameters; raises `JournalDamaged` where they are not."""
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
        """Where the parameters of this reply are, or would be.

        The digest is part of the name: two answers to one task, the second of which a server that
        is no longer in charge takes in, do not overwrite each other.
        """
        return self.folder / f"{task_id}.{ref.digest[:16]}"

    def adopt(self, task_id: str, ref: BlobRef, source: Path) -> Path:
        """Take over the file ``source``, durably; raises `JournalNotWritable`."""
        path = self.path(task_id, ref)
        move(source, path)
        return path

    def load(self, task_id: str, ref: BlobRef) -> MappedParameters:
        """The reply's parameters; raises `JournalDamaged` where they are not."""
        return MappedParameters(self.path(task_id, ref), ref)

    def sweep(self, needed: Iterable[Path]) -> None:
        """Remove every file that is not ``needed``."""
        _sweep(self.folder, {path.name for path in needed})


def _sweep(folder: Path, needed: set[str]) -> None:
    with writing(folder):
        for path in folder.iterdir():
            # Half a file may be somebody's who is just writing it.
            if path.name not in needed and path.suffix != TEMPORARY:
                path.unlink(missing_ok=True)
