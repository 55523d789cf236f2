"""Replies' parameters on disk: written as they come, read as if they were in memory."""

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
"""Bytes from which a file is kept to be written again: its pages cost a third of fresh ones."""
_KEPT_BYTES = 4 << 30 if KEEP_MEMORY else 0


class SpoolFailed(RunError):
    """The server's own disk does not take a reply, or give it back: no client is to blame."""

    def __init__(self, path: Path, error: OSError) -> None:
        """Name the file and the cause."""
        self.path = path
        super().__init__(
            f"{path}: the server cannot keep a reply there: {cause_of(error)}. The reply "
            "is not lost: see to space, permissions and open files there; where the job has a "
            "journal, start the server again to go on"
        )


@contextlib.contextmanager
def _spooling(path: Path) -> Iterator[None]:
    """Turn what the system says against using ``path`` into `SpoolFailed`."""
    try:
        yield
    except OSError as error:
        raise SpoolFailed(path, error) from error


class SpoolFolder:
    """A folder of our own, which goes when nobody holds this, or a file in it, any more."""

    def __init__(self, parent: Path | None) -> None:
        """Make one below ``parent``; None: where temporary files are.

        Raises:
            SpoolFailed: it cannot be made.
        """
        with _spooling(parent or Path(tempfile.gettempdir())):
            self.path = Path(tempfile.mkdtemp(prefix="flmq-spool-", dir=parent))
        self._free: FreeList[Path] = FreeList(_KEPT_BYTES, _unlink)
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)

    def take(self, name: str, size: int, *, ahead: bool = True) -> tuple[_Place, int]:
        """A file of ``size`` bytes, of any value, and its descriptor.

        Not ``ahead``, its space is taken as it is written: nobody knows that so much will come.

        Raises:
            SpoolFailed: there is no room for it, or the folder cannot be written.
        """
        again = self._take_again(size) if ahead else None
        if again is not None:
            return again
        with _spooling(self.path):
            # A file of its own: one of the same name may be complete, and wait to be taken in.
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
        """A file that nobody holds, made as long as is asked for; None where there is none."""
        if size < _LARGE:
            return None
        # What is compressed has many sizes: then the oldest will do, made as long.
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
            # Somebody removed it, or there is no room: a new one may do, or says why not.
            if descriptor >= 0:
                os.close(descriptor)
            path.unlink(missing_ok=True)
            return None
        return _Place(self, self._free, path, size), descriptor

    def _take_space(self, descriptor: int, size: int) -> None:
        """Now rather than in the middle; and what is mapped can then always be read."""
        try:
            _allocate(descriptor, size)
        except OSError:
            self._free.trim(0)
            _allocate(descriptor, size)

    def keep(self, max_bytes: int) -> None:
        """Keep ``max_bytes`` of files that nobody holds, from now on, to be written again."""
        self._free.keep(max_bytes)


def _unlink(path: Path) -> None:
    path.unlink(missing_ok=True)


class _Place:
    """A file that is in use for as long as anybody holds this."""

    def __init__(self, folder: SpoolFolder, free: FreeList[Path], path: Path, size: int) -> None:
        self.path = path
        self._folder = folder  # is there as long as we are
        self._finalizer = (
            weakref.finalize(self, _unlink, path)
            if size < _LARGE
            else weakref.finalize(self, free.give_back, path, size)
        )

    def leave(self) -> None:
        """The file is somebody else's from now on."""
        self._finalizer.detach()

    def remove(self) -> None:
        """Remove the file, which never became anything."""
        self.leave()
        _unlink(self.path)


class SpoolFile:
    """One blob on disk, filled chunk by chunk. Open only while it is written: there may be many."""

    def __init__(self, folder: SpoolFolder, name: str, ref: BlobRef, *, ahead: bool = True) -> None:
        """Take the space for ``ref`` in ``folder``: now, or not ``ahead`` as chunks come.

        Raises:
            SpoolFailed: there is no room for it, or the folder cannot be written.
        """
        self.ref = ref
        self._progress = BlobProgress(ref)
        place, descriptor = folder.take(name, ref.total, ahead=ahead)
        os.close(descriptor)
        self._place: _Place | None = place
        self.path = place.path

    def write(self, index: int, data: bytes | memoryview) -> bool:
        """Put a chunk in its place; whether the blob is complete. Duplicates do no harm.

        Raises:
            MalformedMessage: this is not a chunk of this blob.
            SpoolFailed: it cannot be written.
        """
        offset = self._progress.accept(index, data)
        if offset is not None:
            view = memoryview(data)
            with _spooling(self.path), self.path.open("r+b", buffering=0) as file:
                while view:
                    written = _write_at(file.fileno(), view, offset)
                    view, offset = view[written:], offset + written
        return self._progress.complete

    def parameters(self) -> SpooledParameters:
        """The complete blob's parameters, which own the file from now on.

        Raises:
            MalformedMessage: the bytes are not those that the reference names.
            SpoolFailed: they cannot be read.
        """
        parameters = SpooledParameters(self.path, self.ref, place=self._place)
        self._progress.finish(parameters.map())
        self._place = None
        return parameters

    def close(self) -> None:
        """Write no more; what nobody has the `parameters` of is removed at once. Idempotent."""
        if self._place is not None:
            self._place.remove()
        self._place = None


def _write_at(file: int, data: memoryview, offset: int) -> int:
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, offset)
    os.lseek(file, offset, os.SEEK_SET)
    return os.write(file, data)


def _allocate(file: int, size: int) -> None:
    """Have ``size`` bytes of disk; where that cannot be asked for, at least a file that long."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
    else:
        os.ftruncate(file, size)


class _Mapping(mmap.mmap):
    """A file's bytes, and what keeps the file from being written again meanwhile."""

    place: _Place | None = None


class SpooledParameters(FileParameters):
    """Parameters of a reply, in a file of theirs while anybody holds them, or a view."""

    def __init__(self, path: Path, ref: BlobRef, *, place: _Place | None = None) -> None:
        """Read the file at ``path``, which holds the blob of ``ref``."""
        super().__init__(path, ref)
        self._place = place

    def map(self) -> _Mapping | bytes:
        """The file as memory.

        Raises:
            SpoolFailed: it cannot be read.
        """
        if self.ref.total == 0:
            return b""
        with _spooling(self.path), self.path.open("rb") as file:
            mapping = _Mapping(file.fileno(), self.ref.total, access=mmap.ACCESS_READ)
        mapping.place = self._place
        return mapping

    def keep(self, path: Path) -> None:
        """The file was moved to ``path``, and is somebody else's to remove."""
        self.path = path
        if self._place is not None:
            self._place.leave()
        self._place = None
