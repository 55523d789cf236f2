"""The models a worker has read, by digest: in memory, or in a folder that workers share."""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from flmq.common.errors import MalformedMessage
from flmq.common.files import create_private, make_folder
from flmq.common.locks import Timeout, process_lock
from flmq.common.logger import logger
from flmq.wire import BlobProgress, BlobRef

__all__ = ["DEFAULT_CACHE_BYTES", "FolderCache", "MemoryCache", "ModelCache"]

DEFAULT_CACHE_BYTES = 128 * 1024**2
"""The last model is kept whatever its size, and that one is what is needed again."""


class ModelCache(Protocol):
    """Keeps the last models that were read. Thread-safe."""

    def get(self, ref: BlobRef, read: Callable[[], memoryview]) -> memoryview:
        """The blob of ``ref``, by ``read`` where it is not kept; two callers read it once."""


class MemoryCache:
    """In this process's memory."""

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Keep models of ``max_bytes`` in all, and the last one whatever its size."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._models: OrderedDict[str, memoryview] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}

    def get(self, ref: BlobRef, read: Callable[[], memoryview]) -> memoryview:
        """The blob of ``ref``."""
        with self._lock:
            turn = self._reading.setdefault(ref.digest, threading.Lock())
        try:
            with turn:
                blob = self._find(ref.digest)
                if blob is None:
                    self._make_room(ref.total)
                    blob = read()
                    with self._lock:
                        self._models[ref.digest] = blob
        finally:
            with self._lock:
                self._reading.pop(ref.digest, None)
        return blob

    def _find(self, digest: str) -> memoryview | None:
        with self._lock:
            blob = self._models.get(digest)
            if blob is not None:
                self._models.move_to_end(digest)
            return blob

    def _make_room(self, size: int) -> None:
        """Drop the oldest before a new one is read, so that both need not fit."""
        with self._lock:
            while self._models and sum(map(len, self._models.values())) + size > self._max_bytes:
                self._models.popitem(last=False)


class FolderCache:
    """In files of a folder, which several workers of a machine may share.

    Whoever reads, writes or removes a model's files holds the lock of its digest meanwhile.
    """

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Keep models of ``max_bytes`` in all below ``folder``, which is made if need be."""
        make_folder(folder)
        self._folder = folder
        self._max_bytes = max_bytes
        self._here = threading.Lock()
        self._checked: set[tuple[str, int]] = set()
        """Digests whose files (by inode) this process has seen to be right."""

    def get(self, ref: BlobRef, read: Callable[[], memoryview]) -> memoryview:
        """The blob of ``ref``, mapped: the memory is the machine's, once for all workers.

        A file is checked when this process first opens it, and read anew where it is damaged.
        """
        with self._here, self._turn(ref.digest):
            mapped = self._open(ref)
            if mapped is not None:
                return mapped
            blob = read()
            try:
                self._store(ref, blob)
                self._evict(keep=ref.digest)
                return self._open(ref) or blob
            except OSError as error:
                logger.warning(
                    "model %s is not kept in %s: %s", ref.digest[:12], self._folder, error
                )
                return blob

    def _open(self, ref: BlobRef) -> memoryview | None:
        """The mapped file; None where there is none, or not of this model."""
        path = self._path(ref.digest)
        try:
            with path.open("rb") as file:
                status = os.fstat(file.fileno())
                if status.st_size != ref.total:
                    raise MalformedMessage(f"{status.st_size} bytes, not {ref.total}")
                mapped = mmap.mmap(file.fileno(), ref.total, access=mmap.ACCESS_READ)
            if (ref.digest, status.st_ino) not in self._checked:
                BlobProgress(ref).finish(mapped)
                self._checked.add((ref.digest, status.st_ino))
            now = time.time_ns()  # the file system's own clock ticks every few milliseconds
            os.utime(path, ns=(now, now))
        except FileNotFoundError:
            return None
        except MalformedMessage as error:
            logger.warning("the cached model %s is damaged, reading it anew: %s", path, error)
            return None
        return memoryview(mapped)

    @contextlib.contextmanager
    def _turn(self, digest: str, *, wait: bool = True) -> Iterator[None]:
        """One at a time, of all processes, has a model's files.

        Without ``wait`` it is a `Timeout` where somebody has.
        """
        with process_lock(self._folder / f"{digest}.lock").acquire(blocking=wait):
            yield

    def _store(self, ref: BlobRef, blob: memoryview) -> None:
        temporary = self._path(ref.digest).with_suffix(".tmp")
        try:
            temporary.unlink(missing_ok=True)
            with create_private(temporary) as file:
                file.write(blob)
            temporary.replace(self._path(ref.digest))
        finally:
            temporary.unlink(missing_ok=True)

    def _evict(self, keep: str) -> None:
        """Remove the models longest unused, beyond the limit, and what killed processes left."""
        paths = sorted(self._folder.glob("*.blob"), key=_last_used, reverse=True)
        total = _size(self._path(keep))
        for path in (*paths, *self._folder.glob("*.tmp")):
            if path.stem == keep:
                continue
            total += _size(path)
            if total > self._max_bytes or path.suffix == ".tmp":
                self._remove(path.stem)

    def _remove(self, digest: str) -> None:
        """Remove a model's files, unless somebody has them in use."""
        with contextlib.suppress(Timeout), self._turn(digest, wait=False):
            for suffix in (".tmp", ".blob", ".lock"):
                with contextlib.suppress(PermissionError):  # Windows: it is open
                    self._path(digest).with_suffix(suffix).unlink(missing_ok=True)

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.blob"


def _last_used(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0
