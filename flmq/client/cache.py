"""The models a worker has read, by digest: in memory, or in a folder that workers share."""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from flmq.wire import BlobRef

__all__ = ["DEFAULT_CACHE_BYTES", "FolderCache", "MemoryCache", "ModelCache"]

DEFAULT_CACHE_BYTES = 2 * 1024**3

Blob = bytearray | memoryview


class ModelCache(Protocol):
    """Keeps the last models that were read. Thread-safe."""

    def get(self, ref: BlobRef, read: Callable[[], bytearray]) -> Blob:
        """The blob of ``ref``, by ``read`` where it is not kept; two callers read it once."""


class MemoryCache:
    """In this process's memory."""

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Keep models of ``max_bytes`` in all, and the last one whatever its size."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._models: OrderedDict[str, bytearray] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}

    def get(self, ref: BlobRef, read: Callable[[], bytearray]) -> Blob:
        """The blob of ``ref``."""
        with self._lock:
            turn = self._reading.setdefault(ref.digest, threading.Lock())
        with turn:
            blob = self._find(ref.digest)
            if blob is None:
                self._make_room(ref.total)
                blob = read()
                with self._lock:
                    self._models[ref.digest] = blob
        with self._lock:
            self._reading.pop(ref.digest, None)
        return blob

    def _find(self, digest: str) -> bytearray | None:
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
    """In files of a folder, which several workers of a machine may share."""

    def __init__(self, folder: Path, max_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        """Keep models of ``max_bytes`` in all below ``folder``, which is made if need be."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._max_bytes = max_bytes
        self._here = threading.Lock()

    def get(self, ref: BlobRef, read: Callable[[], bytearray]) -> Blob:
        """The blob of ``ref``, mapped: the memory is the machine's, once for all workers."""
        path = self._folder / f"{ref.digest}.blob"
        with self._here, self._turn(ref.digest):
            if not self._is_whole(path, ref):
                self._store(path, read())
                self._evict(keep=path)
            os.utime(path)
            with path.open("rb") as file:
                mapped = mmap.mmap(file.fileno(), ref.total, access=mmap.ACCESS_READ)
        return memoryview(mapped)

    @contextlib.contextmanager
    def _turn(self, digest: str) -> Iterator[None]:
        """One process at a time reads a model; the others find it afterwards."""
        lock = self._folder / f"{digest}.lock"
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _is_whole(self, path: Path, ref: BlobRef) -> bool:
        try:
            return path.stat().st_size == ref.total
        except FileNotFoundError:
            return False

    def _store(self, path: Path, blob: bytearray) -> None:
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        try:
            temporary.write_bytes(blob)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)

    def _evict(self, keep: Path) -> None:
        """Remove the files longest unused, beyond the limit."""
        files = sorted(self._folder.glob("*.blob"), key=_last_used, reverse=True)
        total = 0
        for path in [keep, *(path for path in files if path != keep)]:
            with contextlib.suppress(FileNotFoundError):
                total += path.stat().st_size
                if total > self._max_bytes and path != keep:
                    path.unlink()
                    path.with_suffix(".lock").unlink(missing_ok=True)


def _last_used(path: Path) -> float:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mtime
    return 0.0
