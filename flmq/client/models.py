"""Reading a model from its site's stream: by digest, with bounded credit."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

from flmq.client.cache import ModelCache
from flmq.common.errors import PeerError, RunError, TransportClosed
from flmq.common.logger import logger
from flmq.common.typing import Parameters
from flmq.transport import MODELS, STREAM_OFFSET_HEADER, Delivery, StreamOffset, Transport
from flmq.wire import BlobProgress, BlobRef, blob_chunk_of, tensors_of

__all__ = ["ModelNotFound", "ModelReader", "ModelTooLarge", "available_memory"]

_CREDIT = 16
"""Chunks under way to us: 16 MiB."""
_CLOCKS_DIFFER_BY = 5.0
"""Seconds before its publication from which a model is looked for."""
_FRESH = 30.0
"""Seconds for which going on from the last model read is shorter than looking by time."""
_ASK_AFTER = 1.0
_ASK_AGAIN = 5.0


class ModelNotFound(RunError):
    """A model did not come before the task's deadline."""


class ModelTooLarge(RunError):
    """A model does not fit this worker's memory."""

    def __init__(self, size: int, limit: int) -> None:
        """Name both, in bytes."""
        self.size = size
        self.limit = limit
        super().__init__(
            f"the model has {size} bytes and this worker takes {limit}: run it on a machine with "
            "more memory, or raise --max-model-bytes"
        )


def available_memory() -> int:
    """Bytes that a process may still take here: of the machine, or of its control group."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    group = Path("/sys/fs/cgroup/memory.max")
    if group.exists() and (text := group.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


class ModelReader:
    """Gets models by their reference. Thread-safe."""

    def __init__(
        self,
        transport: Transport,
        cache: ModelCache,
        *,
        max_model_bytes: int | None = None,
        stopping: threading.Event,
    ) -> None:
        """Read over ``transport``; models over ``max_model_bytes`` (None: what fits) are refused.

        Waiting ends when ``stopping`` is set.
        """
        self._transport = transport
        self._cache = cache
        self._max_model_bytes = max_model_bytes
        self._stopping = stopping
        self._lock = threading.Lock()
        self._next_offset: int | None = None
        self._read_at = 0.0

    def get(self, ref: BlobRef, deadline_unix: float | None, ask: Callable[[], None]) -> Parameters:
        """The parameters of ``ref``, from the cache or the stream. Blocks.

        ``ask`` has the server publish it again; ``deadline_unix`` is in Unix seconds.

        Raises:
            ModelTooLarge: it does not fit here.
            ModelNotFound: it did not come before the deadline.
            TransportClosed: the worker is stopping.
        """
        limit = self._max_model_bytes
        limit = available_memory() if limit is None else limit
        if ref.total > limit:
            raise ModelTooLarge(ref.total, limit)
        blob = self._cache.get(ref, lambda: self._read(ref, deadline_unix, ask))
        # Views where the contract says bytes: whoever decodes tensors takes both.
        return Parameters(cast("list[bytes]", tensors_of(ref, blob)), ref.tensor_type)

    def _read(
        self, ref: BlobRef, deadline_unix: float | None, ask: Callable[[], None]
    ) -> bytearray:
        started = time.monotonic()
        blob = bytearray(ref.total)
        progress = BlobProgress(ref)
        consumer = self._transport.consumer([MODELS], prefetch=_CREDIT, offset=self._begin(ref))
        next_ask = started + _ASK_AFTER
        try:
            while not progress.complete:
                delivery = consumer.receive(timeout=max(0.05, next_ask - time.monotonic()))
                if delivery is not None:
                    if self._take(delivery, progress, blob):
                        next_ask = time.monotonic() + _ASK_AFTER
                    consumer.ack(delivery)
                self._check_time(ref, deadline_unix)
                if time.monotonic() >= next_ask and not progress.complete:
                    next_ask = time.monotonic() + _ASK_AGAIN
                    logger.info("model %s is not in the stream: asking for it", ref.digest[:12])
                    ask()
        finally:
            consumer.close()
        progress.finish(blob)
        seconds = time.monotonic() - started
        logger.debug("model %s: %d bytes in %.2f s", ref.digest[:12], ref.total, seconds)
        return blob

    def _take(self, delivery: Delivery, progress: BlobProgress, blob: bytearray) -> bool:
        """Put a chunk in its place; whether it was one of ours."""
        offset = delivery.message.headers.get(STREAM_OFFSET_HEADER)
        with self._lock:
            if isinstance(offset, int):
                self._next_offset = offset + 1
            self._read_at = time.monotonic()
        try:
            chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
            if chunk is None or chunk.name != progress.ref.digest:
                return False
            start = progress.accept(chunk.index, chunk.data)
        except PeerError as error:
            logger.warning("passing over a message in the stream of models: %s", error)
            return False
        if start is not None:
            blob[start : start + len(chunk.data)] = chunk.data
        return True

    def _begin(self, ref: BlobRef) -> StreamOffset:
        """Where to look: after the model read last, or from shortly before the publication."""
        with self._lock:
            recent = time.monotonic() - self._read_at < _FRESH
            if recent and self._next_offset is not None:
                return self._next_offset
        published = ref.published_unix_ms / 1000 - _CLOCKS_DIFFER_BY
        return datetime.fromtimestamp(max(0.0, published), UTC)

    def _check_time(self, ref: BlobRef, deadline_unix: float | None) -> None:
        if self._stopping.is_set():
            raise TransportClosed("the worker is stopping")
        if deadline_unix is not None and time.time() > deadline_unix:
            raise ModelNotFound(
                f"model {ref.digest[:12]} ({ref.total} bytes) did not come before the deadline"
            )
