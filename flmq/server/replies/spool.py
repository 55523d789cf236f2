"""Keep replies' parameters on disk: written as they arrive, read by memory mapping."""

from __future__ import annotations

import contextlib
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path

from flmq.common.buffers import KEEP_MEMORY
from flmq.common.errors import RunError
from flmq.common.exhausted import cause_of
from flmq.common.freelist import FreeList
from flmq.wire import BlobProgress, BlobRef, FileParameters

__all__ = ["SpoolFailed", "SpoolFile", "SpoolFolder", "SpooledParameters"]

_LARGE = 1 << 20
"""Bytes from which a file is kept for reuse: its pages cost a third of fresh ones."""
_KEPT_BYTES = 4 << 30 if KEEP_MEMORY else 0


class SpoolFailed(RunError):
    """The server's own disk cannot write or read a reply: no client is to blame."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Name the file and the cause in the message."""
        self.path = path
        super().__init__(
            f"{path}: the server cannot keep a reply there: {cause_of(error)}. The reply "
            "is not lost: see to space, permissions and open files there; where the job has a "
            "journal, start the server again to go on"
        )


@contextlib.contextmanager
def _spooling(path: Path) -> Iterator[None]:
    """Turn an `OSError` in using ``path`` into `SpoolFailed`."""
    try:
        yield
    except OSError as error:
        raise SpoolFailed(path, error) from error


class SpoolFolder:
    """A private folder, removed when neither this object nor a file in it is held any more."""

    def __init__(self, parent: Path | None) -> None:
        """Make the folder below ``parent``. None: below the system's temporary folder.

        Raises:
            SpoolFailed: the folder cannot be made.
        """
        with _spooling(parent or Path(tempfile.gettempdir())):
            self.path = Path(tempfile.mkdtemp(prefix="flmq-spool-", dir=parent))
        self._free: FreeList[Path] = FreeList(_KEPT_BYTES, _unlink)
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def take(self, name: str, size: int, *, ahead: bool = True) -> tuple[_Place, int]:
        """Return a file of ``size`` arbitrary bytes, and its open descriptor.

        ``ahead`` reserves its disk space now; otherwise space is used as data is written.

        Raises:
            SpoolFailed: the disk is full, or the folder cannot be written.
        """
        again = self._take_again(size) if ahead else None
        if again is not None:
            return again
        with _spooling(self.path):
            # Make the name unique: a complete file of this name may still wait to be taken in.
            descriptor, path = tempfile.mkstemp(prefix=f"{name}-", dir=self.path)
            try:
                if ahead:
                    self._take_space(descriptor, size)
                else:
                    os.ftruncate(descriptor, size)
            except OSError:
                os.close(descriptor)
                Path(path).unlink()
                raise
        return _Place(self, self._free, Path(path), size), descriptor

    def _take_again(self, size: int) -> tuple[_Place, int] | None:
        """Return a file for reuse, resized to ``size`` bytes. None: none can be reused."""
        if size < _LARGE:
            return None
        # Compressed blobs vary in size: if none has this size, resize the oldest file.
        path = self._free.take(size) or self._free.take_oldest()
        if path is None:
            return None
        descriptor = -1
        try:
            descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
            if os.fstat(descriptor).st_size != size:
                os.ftruncate(descriptor, size)
                _allocate(descriptor, size)
        except OSError:
            # The file was removed or the disk is full: the caller tries a new file.
            if descriptor >= 0:
                os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        return _Place(self, self._free, path, size), descriptor

    def _take_space(self, descriptor: int, size: int) -> None:
        """Reserve the space now, not midway; a mapping of it can then always be read."""
        try:
            _allocate(descriptor, size)
        except OSError:
            self._free.trim(0)
            _allocate(descriptor, size)

    def keep(self, max_bytes: int) -> None:
        """From now on, keep at most ``max_bytes`` of unused files for reuse."""
        self._free.keep(max_bytes)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Place:
    """A file that stays in use as long as this object is held."""

    def __init__(self, folder: SpoolFolder, free: FreeList[Path], path: Path, size: int) -> None:
        self.path = path
        self._folder = folder  # held, so that the folder outlives this file
        self._finalizer = (
            weakref.finalize(self, _unlink, path)
            if size < _LARGE
            else weakref.finalize(self, free.give_back, path, size)
        )

    def leave(self) -> None:
        """Give up ownership of the file."""
        self._finalizer.detach()

    def remove(self) -> None:
        """Remove the file, which was never completed."""
        self.leave()
        _unlink(self.path)


class SpoolFile:
    """A blob on disk, filled chunk by chunk; open only during a write, as there may be many."""

    def __init__(self, folder: SpoolFolder, name: str, ref: BlobRef, *, ahead: bool = True) -> None:
        """Make a file for ``ref`` in ``folder``; ``ahead`` reserves its disk space now.

        Raises:
            SpoolFailed: the disk is full, or the folder cannot be written.
        """
        self.ref = ref
        self._progress = BlobProgress(ref)
        place, descriptor = folder.take(name, ref.total, ahead=ahead)
        os.close(descriptor)
        self._place: _Place | None = place
        self.path = place.path

    def write(self, index: int, data: bytes | memoryview) -> bool:
        """Write a chunk, ignoring duplicates; return whether the blob is complete.

        Raises:
            MalformedMessage: the chunk is not one of this blob.
            SpoolFailed: the chunk cannot be written.
        """
        taken = self._progress.take(index, data)
        if taken is not None:
            offset, plain = taken
            view = memoryview(plain)
            with _spooling(self.path), self.path.open("r+b", buffering=0) as file:
                while view:
                    written = _write_at(file.fileno(), view, offset)
                    view, offset = view[written:], offset + written
        return self._progress.complete

    def parameters(self) -> SpooledParameters:
        """Return the complete blob's parameters, which own the file from now on.

        Raises:
            MalformedMessage: the bytes do not match the blob's reference.
            SpoolFailed: the bytes cannot be read.
        """
        parameters = SpooledParameters(self.path, self.ref, place=self._place)
        self._progress.finish(parameters.map())
        self._place = None
        return parameters

    def close(self) -> None:
        """Stop writing; remove the file unless `parameters` has taken it over. Idempotent."""
        if self._place is not None:
            self._place.remove()
        self._place = None


def _write_at(file: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.write(file, data)


def _allocate(file: int, size: int) -> None:
    """Reserve ``size`` bytes of disk; if the system cannot, only make the file that long."""
    if hasattr(os, "posix_fallocate") and size:  # of no bytes it makes an error
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


class _Mapping(mmap.mmap):
    """A file's mapped bytes; ``place`` keeps the file from being reused meanwhile."""

    place: _Place | None = None


class SpooledParameters(FileParameters):
    """A reply's parameters, whose file lasts as long as they or a view of them are held."""

    def __init__(self, path: Path, ref: BlobRef, *, place: _Place | None = None) -> None:
        """Use the file at ``path``, which holds the blob of ``ref``."""
        super().__init__(path, ref)
        self._place = place

    def map(self) -> _Mapping | bytes:
        """Return the file mapped into memory.

        Raises:
            SpoolFailed: the file cannot be read.
        """
        if self.ref.total == 0:
            return b""
        with _spooling(self.path), self.path.open("rb") as file:
            mapping = _Mapping(file.fileno(), self.ref.total, access=mmap.ACCESS_READ)
        mapping.place = self._place
        return mapping

    def keep(self, path: Path) -> None:
        """Note that the file was moved to ``path`` and is no longer to be removed here."""
        self.path = path
        if self._place is not None:
            self._place.leave()
        self._place = None
