"""Read a model by digest, with bounded prefetch.

It comes from the site's stream, or, if it is for one client only, from that client's queue of
models, to which the server sends it on request; where all is provisioned, from its queue of tasks.
"""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import cast

import numpy as np

from flmq.client.models.cache import ModelCache
from flmq.client.models.open_stream import OpenStream, RestingStream
from flmq.client.models.own import OwnModels, OwnStream
from flmq.client.models.queues import ModelQueues
from flmq.common.buffers import new_buffer
from flmq.common.errors import (
    BrokerRefusal,
    ModelTooLarge,
    PeerError,
    RunError,
    TransportClosed,
)
from flmq.common.logger import logger
from flmq.common.machine import available_memory
from flmq.common.rare_lines import RareLines
from flmq.common.typing import Parameters
from flmq.transport import (
    MODELS,
    STREAM_OFFSET_HEADER,
    Delivery,
    StreamOffset,
    Topology,
    Transport,
)
from flmq.wire import LARGE_MODEL, BlobProgress, BlobRef, blob_chunk_of, tensors_of

__all__ = ["ModelNotFound", "ModelReader"]

_CREDIT = 16
"""Prefetch in chunks: 16 MiB."""
_CLOCKS_DIFFER_BY = 5.0
"""Seconds before its publication time at which to start looking for a model."""
_FRESH = 30.0
"""Seconds for which continuing from the last model read is faster than seeking by time."""
_QUIET = 1.0
"""Seconds without a message after which the end of the stream is assumed."""
_STALLED = 30.0
"""Seconds for the next part once one has come: the rest is there, but slow."""
_SOME_BYTES = 4096
"""More than a connection's heartbeats: a part is arriving, over a slow link."""
_LOOK_AT_MOST = 30.0
"""Seconds for which to skip chunks of other models, which may never end."""
_ASK_AGAIN = 5.0
PATIENCE = 600.0
"""Seconds for which a model is requested, unless a worker's options say otherwise."""


class ModelNotFound(RunError):
    """A model did not arrive before the task's deadline, or despite repeated requests."""


class ModelReader:
    """Read models by their reference. Thread-safe."""

    def __init__(
        self,
        transport: Transport,
        cache: ModelCache,
        *,
        max_model_bytes: int | None = None,
        patience: float = PATIENCE,
        stopping: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Read over ``transport``; refuse models over ``max_model_bytes`` (None: what fits memory).

        A model that does not arrive is requested for ``patience`` seconds, not counting time
        without a broker. Waiting ends when ``stopping`` is set.
        ``clock`` gives seconds, ``unix_clock`` those since 1970.
        """
        self._cache = cache
        self._max_model_bytes = max_model_bytes
        self._asks = max(1, math.ceil(patience / _ASK_AGAIN))
        self._stopping = stopping
        self._clock = clock
        self.unix_clock = unix_clock
        """By which the deadlines are that `get` is given."""
        self.own: OwnModels | None = None
        """Hears clients' own models where they come by their queues of tasks."""
        self._lock = threading.Lock()
        self._lines = RareLines(clock)
        self._queues = ModelQueues(transport, self._asks)
        self._resting = RestingStream(clock)
        self._next_offset: int | None = None
        self._read_at = 0.0

    def get(
        self,
        ref: BlobRef,
        deadline_unix: float | None,
        ask: Callable[[], None],
        own: Topology | None = None,
    ) -> Parameters:
        """Return the parameters of ``ref``, from the cache, the stream, or a queue. Blocks.

        ``ask`` makes the server publish it again: it blocks until the broker has the request, and
        may raise to end the waiting. ``deadline_unix`` is in Unix seconds; ``own`` is the client's
        queue of its own models (`flmq.transport.own_models_topology`).

        Raises:
            ModelTooLarge: it does not fit here.
            ModelNotFound: it did not arrive.
            TransportClosed: the worker is stopping.
        """
        if self._max_model_bytes is not None:
            _check_size(ref, self._max_model_bytes)
        blob = self._cache.get(
            ref,
            lambda: self._read(ref, deadline_unix, ask, own),
            lambda: self._check_time(ref, deadline_unix),
        )
        # Views where the contract says bytes: decoding tensors accepts both.
        return Parameters(cast("list[bytes]", tensors_of(ref, blob)), ref.tensor_type, ref.names)

    def _read(
        self,
        ref: BlobRef,
        deadline_unix: float | None,
        ask: Callable[[], None],
        own: Topology | None,
    ) -> memoryview:
        if self._max_model_bytes is None:
            # Not earlier: a cached model takes no more memory.
            _check_size(ref, available_memory())
        started = self._clock()
        blob, progress = _memory_for(ref.total), BlobProgress(ref)
        asking = _Asking(progress, ask, self._asks, self._clock)
        if ref.is_shared or own is None:
            self._search(progress, blob, deadline_unix, asking)
        else:
            self._fetch(own, progress, blob, deadline_unix, asking)
        progress.finish(blob)
        seconds = self._clock() - started
        logger.debug("model %s: %d bytes in %.2f s", ref.digest[:12], ref.total, seconds)
        return blob

    def _search(
        self,
        progress: BlobProgress,
        blob: memoryview,
        deadline_unix: float | None,
        ask: Callable[[], None],
    ) -> None:
        """Look for a shared model in several places of the stream, then request it."""
        asked = False

        def ask_for_it() -> bool:
            nonlocal asked
            asked = not asked
            if asked:
                ask()
            return asked

        *nearer, last = self._places(progress.ref)
        for place in nearer:
            # A reader that rests may have lost a stream that there is again.
            with (
                contextlib.suppress(BrokerRefusal),
                self._stream_at(place, progress, deadline_unix, rested=True) as stream,
            ):
                self._follow(stream, progress, blob, deadline_unix, lambda: False)
        while not progress.complete:
            # Start over if nothing came: a stream that was deleted has new offsets.
            with self._stream_at(last, progress, deadline_unix) as stream:
                self._follow(stream, progress, blob, deadline_unix, ask_for_it)

    def _fetch(
        self,
        own: Topology,
        progress: BlobProgress,
        blob: memoryview,
        deadline_unix: float | None,
        ask: Callable[[], None],
    ) -> None:
        """Request a client's own model to be sent to its queue, and read it there completely."""

        def ask_again() -> bool:
            ask()
            return True

        if self.own is not None:
            with self.own.reading(progress.name) as heard:
                ask()
                self._follow(heard, progress, blob, deadline_unix, ask_again)
            return
        self._queues.declare(own)
        ask()
        wait = partial(self._wait, progress.ref, deadline_unix)
        stream = OpenStream(self._queues.consumer(own.queues[0].name, _CREDIT, wait), 0)
        with contextlib.closing(stream):
            self._follow(stream, progress, blob, deadline_unix, ask_again)

    def _places(self, ref: BlobRef) -> list[StreamOffset]:
        """Return where to look: after the last model read, and shortly before the publication."""
        # Do not start from a time in the future (the server's clock, or no real time).
        published = min(ref.published_unix_ms / 1000, self.unix_clock()) - _CLOCKS_DIFFER_BY
        by_time = datetime.fromtimestamp(max(0.0, published), UTC)
        with self._lock:
            recent = self._clock() - self._read_at < _FRESH
            if recent and self._next_offset is not None:
                return [self._next_offset, by_time]
        return [by_time]

    @contextlib.contextmanager
    def _stream_at(
        self,
        place: StreamOffset,
        progress: BlobProgress,
        deadline_unix: float | None,
        *,
        rested: bool = False,
    ) -> Iterator[OpenStream]:
        """Read the stream from ``place`` on; ``rested``: or with the reader that rests near it.

        The reader rests afterwards if all of the model has come.
        """
        self._queues.declare_stream()
        prefetch = min(_CREDIT, progress.ref.count)
        stream = self._resting.take(prefetch) if rested else None
        if stream is None:
            wait = partial(self._wait, progress.ref, deadline_unix)
            consumer = self._queues.consumer(MODELS, prefetch, wait, place)
            stream = OpenStream(consumer, prefetch)
        try:
            yield stream
        finally:
            if progress.complete:
                self._resting.keep(stream)
            else:
                stream.close()

    def look(self) -> None:
        """Close what has not been read from for long. Call it periodically."""
        self._resting.look()

    def _follow(
        self,
        stream: OpenStream | OwnStream,
        progress: BlobProgress,
        blob: memoryview,
        deadline_unix: float | None,
        at_end: Callable[[], bool],
    ) -> None:
        """Read on until complete, or until ``at_end()`` is False at the end.

        The end is where nothing has come for a while, and no bytes of a message are arriving.
        """
        now = self._clock()
        latest, next_look, arrived = now + _LOOK_AT_MOST, now + _QUIET, stream.arrived
        while not progress.complete:
            left = next_look - self._clock()
            delivery, missing = stream.receive(min(1.0, max(0.05, left))), progress.missing
            now = self._clock()
            if delivery is not None:
                if self._take(delivery, progress, blob):
                    next_look, latest = max(next_look, now + _STALLED), now + 2 * _STALLED
                stream.ack(delivery, progress.missing if progress.missing < missing else None)
            is_coming = abs(stream.arrived - arrived) > _SOME_BYTES
            if is_coming or delivery is not None:
                arrived = stream.arrived
                if now < latest:
                    next_look = max(next_look, now + _QUIET)
            self._check_time(progress.ref, deadline_unix)
            if now >= next_look and not progress.complete:
                if not at_end():
                    return
                next_look, latest = now + _ASK_AGAIN, now + _LOOK_AT_MOST

    def _take(self, delivery: Delivery, progress: BlobProgress, blob: memoryview) -> bool:
        """Store a chunk at its place; return whether it belongs to this model."""
        offset = delivery.message.headers.get(STREAM_OFFSET_HEADER)
        with self._lock:
            if isinstance(offset, int):
                self._next_offset, self._read_at = offset + 1, self._clock()
        try:
            chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
            if chunk is None or chunk.name != progress.name:
                return False
            progress.take(chunk.index, chunk.data, blob)
        except PeerError as error:
            self._lines.warn(f"passing over a message in the stream of models: {error}")
            return False
        return True

    def _wait(self, ref: BlobRef, deadline_unix: float | None) -> None:
        self._stopping.wait(_ASK_AGAIN)
        self._check_time(ref, deadline_unix)

    def _check_time(self, ref: BlobRef, deadline_unix: float | None) -> None:
        if self._stopping.is_set():
            raise TransportClosed("the worker is stopping")
        if deadline_unix is not None and self.unix_clock() > deadline_unix:
            raise ModelNotFound(
                f"model {ref.digest[:12]} ({ref.total} bytes) did not come before the deadline"
            )


class _Asking:
    """Request a model, a limited number of times as long as none of it arrives."""

    def __init__(
        self,
        progress: BlobProgress,
        ask: Callable[[], None],
        at_most: int,
        clock: Callable[[], float],
    ) -> None:
        self._progress = progress
        self._ask = ask
        self._at_most = at_most
        self._clock = clock
        self._started = self._clock()
        self._asks = self._had = 0

    def __call__(self) -> None:
        """Request it once more.

        Raises:
            ModelNotFound: it was requested often enough.
        """
        ref, received = self._progress.ref, self._progress.received
        if received != self._had:
            self._asks, self._had = 0, received  # it is arriving, if slowly
        name = f"model {ref.digest[:12]}"
        if self._asks >= self._at_most:
            raise ModelNotFound(
                f"{name} ({ref.total} bytes) is not in the stream, and did not come though it was "
                f"asked for {self._asks} times in {self._clock() - self._started:.0f} s"
            )
        if ref.is_shared:
            logger.info("%s is not in the stream: asking for it", name)
        self._ask()
        self._asks += 1


def _check_size(ref: BlobRef, limit: int) -> None:
    if ref.total > limit:
        raise ModelTooLarge(
            ref.total,
            limit,
            f"the model has {ref.total} bytes and this worker takes {limit}: run it on a machine "
            "with more memory, or raise --max-model-bytes",
        )


def _memory_for(size: int) -> memoryview:
    """Return ``size`` bytes; those of a large model are not kept once it is gone."""
    return np.empty(size, np.uint8).data if size >= LARGE_MODEL else new_buffer(size)
