"""Replies' parameters on disk: written as they come, read as if they were in memory."""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from pathlib import Path

from flmq.wire import BlobProgress, BlobRef, FileParameters

__all__ = ["SpoolFile", "SpoolFolder", "SpooledParameters"]


class SpoolFolder:
    """A folder of our own, which goes when nobody holds this, or a file in it, any more."""

    def __init__(self, parent: Path | None) -> None:
        """Make one below ``parent``; None: where temporary files are."""
        self.path = Path(tempfile.mkdtemp(prefix="flmq-spool-", dir=parent))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


class SpoolFile:
    """One blob on disk, filled chunk by chunk."""

    def __init__(self, folder: SpoolFolder, name: str, ref: BlobRef) -> None:
        """Take the space for ``ref`` in ``folder``.

        Raises:
            OSError: there is no room for it, or the folder cannot be written.
        """
        self.ref = ref
        self._folder = folder
        self._progress = BlobProgress(ref)
        # A file of its own: one of the same name may be complete, and wait to be taken in.
        self._file, path = tempfile.mkstemp(prefix=f"{name}-", dir=folder.path)
        self.path = Path(path)
        try:
            # Now rather than in the middle; and what is mapped can then always be read.
            _take_space(self._file, ref.total)
        except OSError:
            self.delete()
            raise

    def write(self, index: int, data: bytes | memoryview) -> bool:
        """Put a chunk in its place; whether the blob is complete. Duplicates do no harm.

        Raises:
            MalformedMessage: this is not a chunk of this blob.
            OSError: it cannot be written.
        """
        offset = self._progress.accept(index, data)
        if offset is not None:
            view = memoryview(data)
            while view:
                written = os.pwrite(self._file, view, offset)
                view, offset = view[written:], offset + written
        return self._progress.complete

    def parameters(self) -> SpooledParameters:
        """The complete blob's parameters, which own the file from now on.

        Raises:
            MalformedMessage: the bytes are not those that the reference names.
        """
        parameters = SpooledParameters(self.path, self.ref, folder=self._folder)
        self._progress.finish(parameters.map())
        self._close()
        return parameters

    def delete(self) -> None:
        """Remove it. Idempotent, and harmless once `parameters` has handed it over."""
        if self._file >= 0:
            self._close()
            self.path.unlink(missing_ok=True)

    def _close(self) -> None:
        os.close(self._file)
        self._file = -1


def _take_space(file: int, size: int) -> None:
    """Have ``size`` bytes of disk; where that cannot be asked for, at least a file that long."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


class SpooledParameters(FileParameters):
    """Parameters of a reply; a file of its own is removed when nobody holds the object any more."""

    def __init__(self, path: Path, ref: BlobRef, *, folder: SpoolFolder | None = None) -> None:
        """Read the file at ``path``, which holds the blob of ``ref``; it is ours in our folder."""
        super().__init__(path, ref)
        self._folder = folder
        self._finalizer = None if folder is None else weakref.finalize(self, _remove, path)

    def keep(self, path: Path) -> None:
        """The file was moved to ``path``, and is somebody else's to remove."""
        self.path = path
        if self._finalizer is not None:
            self._finalizer.detach()
        self._folder = None


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
