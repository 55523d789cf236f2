"""Cache the models that a worker has read, by digest: in memory, or in a shared folder."""

from __future__ import annotations

import contextlib
import math
import mmap
import os
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from flmq.common.errors import MalformedMessage
from flmq.common.exhausted import cause_of
from flmq.common.files import create_private, make_folder
from flmq.common.locks import Timeout, process_lock
from flmq.common.logger import logger
from flmq.wire import BlobProgress, BlobRef

__all__ = ["DEFAULT_CACHE_BYTES", "FolderCache", "MemoryCache", "ModelCache"]

DEFAULT_CACHE_BYTES = 128 * 1024**2
"""Bytes. The last model, the one most likely needed again, is kept whatever its size."""
_LOOK_UP = 0.25
"""Seconds between checks whether waiting should end."""
_PATIENCE = 30.0
_SLOWEST = 10 << 20
"""Bytes per second at which another process is assumed to read a model."""


class ModelCache(Protocol):
    """Keep the models that were read last. Thread-safe."""

    def get(
        self,
        ref: BlobRef,
        read: Callable[[], memoryview],
        check: Callable[[], None] = lambda: None,
    ) -> memoryview:
        """Return the blob of ``ref``, calling ``read`` if not cached (once for all callers).

        ``check`` is called while another caller reads, and may raise to end the waiting.
        """


def _wait_for(
    take: Callable[[float], bool],
    check: Callable[[], None],
    patience: float = math.inf,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Call ``take`` with seconds to wait until it succeeds; return False if ``patience`` ends."""
    tries_end = clock() + patience
    while not take(_LOOK_UP):
        check()
        if clock() > tries_end:
            return False
    return True


class MemoryCache:
    """A cache in this process's memory."""

    def __init__(self, max_bytes: int = DEFAULT_CACHE_BYTES, max_models: int | None = None) -> None:
        """Keep models of ``max_bytes`` in all, and the last one whatever its size.

        ``max_models``: and no more than so many. The memory of one that is let go is used again for
        the next, which costs less than filling fresh pages with it.
        """
        self._max_bytes = max_bytes
        self._max_models = math.inf if max_models is None else max_models
        self._lock = threading.Lock()
        self._models: OrderedDict[str, memoryview] = OrderedDict()
        self._reading: dict[str, threading.Lock] = {}

    def get(
        self,
        ref: BlobRef,
        read: Callable[[], memoryview],
        check: Callable[[], None] = lambda: None,
    ) -> memoryview:
        """Return the blob of ``ref``; see `ModelCache`."""
        with self._lock:
            turn = self._reading.setdefault(ref.digest, threading.Lock())
        _wait_for(lambda seconds: turn.acquire(timeout=seconds), check)
        try:
            blob = self._find(ref.digest)
            if blob is None:
                self._make_room(ref.total)
                blob = read()
                with self._lock:
                    self._models[ref.digest] = blob
        finally:
            turn.release()
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
        """Evict the oldest before a new one is read, so that both need not fit."""
        with self._lock:
            while self._models and (
                sum(map(len, self._models.values())) + size > self._max_bytes
                or len(self._models) >= self._max_models
            ):
                self._models.popitem(last=False)


class FolderCache:
    """A cache in files of a folder, which the workers of a machine may share.

    Whoever reads, writes or removes a model's files holds the lock of its digest meanwhile. A
    process that holds it for longer than reading takes, being paused for example, keeps others from
    the cache, but not from work.
    """

    def __init__(
        self,
        folder: Path,
        max_bytes: int = DEFAULT_CACHE_BYTES,
        *,
        patience: float = _PATIENCE,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Keep models of ``max_bytes`` in all below ``folder``, which is created if needed.

        A process that waits for another's reading waits for ``patience`` seconds plus the time that
        reading a model of that size may take.
        ``clock`` gives seconds, ``unix_clock`` those since 1970, as the times of files do.
        """
        make_folder(folder)
        self._folder = folder
        self._max_bytes = max_bytes
        self._patience = patience
        self._clock = clock
        self._unix_clock = unix_clock
        self._here = threading.Lock()
        self._checked: set[tuple[str, int]] = set()
        """Digests whose files (by inode) this process has verified."""

    def get(
        self,
        ref: BlobRef,
        read: Callable[[], memoryview],
        check: Callable[[], None] = lambda: None,
    ) -> memoryview:
        """Return the blob of ``ref``, mapped: all workers of the machine share its memory.

        A file is verified when this process first opens it, and read again if damaged.
        """
        with contextlib.ExitStack() as turn:
            try:
                is_ours = self._wait_for_turn(ref, turn, check)
                mapped = self._open(ref) if is_ours else None
            except OSError as error:
                self._do_without(ref, error)
                is_ours, mapped = False, None
            if mapped is not None:
                return mapped
            blob = read()
            if not is_ours:
                return blob
            try:
                self._store(ref, blob)
                self._evict(keep=ref.digest)
                return self._open(ref) or blob
            except OSError as error:
                self._do_without(ref, error)
                return blob

    def _do_without(self, ref: BlobRef, error: OSError) -> None:
        why = cause_of(error)
        logger.warning("model %s is not kept in %s: %s", ref.digest[:12], self._folder, why)

    def _open(self, ref: BlobRef) -> memoryview | None:
        """Return the mapped file; None if there is none, or not of this model."""
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
            # The file system's own clock ticks only every few milliseconds.
            now = self._unix_clock()
            os.utime(path, (now, now))
        except FileNotFoundError:
            return None
        except MalformedMessage as error:
            logger.warning("the cached model %s is damaged, reading it anew: %s", path, error)
            return None
        return memoryview(mapped)

    def _wait_for_turn(
        self, ref: BlobRef, turn: contextlib.ExitStack, check: Callable[[], None]
    ) -> bool:
        """Lock a model's files among all threads and processes; return False on timeout."""
        _wait_for(lambda seconds: self._here.acquire(timeout=seconds), check)
        turn.callback(self._here.release)

        def take(seconds: float) -> bool:
            try:
                turn.enter_context(self._turn(ref.digest, seconds))
            except Timeout:
                return False
            return True

        patience = self._patience + ref.total / _SLOWEST
        if _wait_for(take, check, patience, self._clock):
            return True
        logger.warning(
            "model %s: another process has had its file in %s in hand for %.0f s (is it stopped?): "
            "reading the model without",
            *(ref.digest[:12], self._folder, patience),
        )
        return False

    def _turn(self, digest: str, seconds: float) -> contextlib.AbstractContextManager[object]:
        """Lock a model's files among all processes; raises `Timeout` if another has them."""
        return process_lock(self._folder / f"{digest}.lock").acquire(timeout=seconds)

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
        """Remove least recently used models over the limit, and leftovers of killed processes."""
        paths = sorted(self._folder.glob("*.blob"), key=_last_used, reverse=True)
        total = _size(self._path(keep))
        for path in (*paths, *self._folder.glob("*.tmp")):
            if path.stem == keep:
                continue
            total += _size(path)
            if total > self._max_bytes or path.suffix == ".tmp":
                self._remove(path.stem)

    def _remove(self, digest: str) -> None:
        """Remove a model's files, unless they are in use."""
        with contextlib.suppress(Timeout), self._turn(digest, 0.0):
            for suffix in (".tmp", ".blob", ".lock"):
                with contextlib.suppress(PermissionError):  # on Windows, if it is open
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
