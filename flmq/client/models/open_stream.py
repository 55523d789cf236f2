"""A reader of the stream of models that stays open from one model to the next.

Opening one costs the broker as much as sending some megabytes. While it rests, the broker owes it
nothing: the last chunks that it read stay un-acked, so that no model is sent that nobody asked for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace

from flmq.transport import Consumer, Delivery, Message

__all__ = ["OpenStream", "RestingStream"]

_RESTS = 30.0
"""Seconds after which a resting reader is closed: it keeps an old part of the stream on disk."""


class OpenStream:
    """A consumer of the stream. For one thread at a time."""

    def __init__(self, consumer: Consumer, prefetch: int) -> None:
        """Read from ``consumer``, which was opened with ``prefetch``."""
        self._consumer = consumer
        self.prefetch = prefetch
        self._held: list[Delivery] = []

    def receive(self, timeout: float) -> Delivery | None:
        """Return the next delivery; None after ``timeout`` seconds."""
        return self._consumer.receive(timeout)

    def ack(self, delivery: Delivery, missing: int | None) -> None:
        """Ack a chunk, after which so many are ``missing`` of its model (None: not a part of it).

        The last ones are not: what is un-acked and what is missing are then the whole prefetch.
        """
        if missing is None or missing >= self.prefetch:
            self._consumer.ack(delivery)
        else:
            without_body = Message(b"", headers=delivery.message.headers)
            self._held.append(replace(delivery, message=without_body))

    def go_on(self) -> None:
        """Ack what was held back: the broker sends what comes next."""
        held, self._held = self._held, []
        for delivery in held:
            self._consumer.ack(delivery)

    @property
    def arrived(self) -> int:
        """Bytes received over its connection: they grow while a large message is arriving."""
        return self._consumer.arrived

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()


class RestingStream:
    """Keeps one reader from one model to the next. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start with none; ``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._resting: OpenStream | None = None
        self._since = 0.0

    def take(self, prefetch: int) -> OpenStream | None:
        """Return the resting reader, reading on; None if there is none with that ``prefetch``."""
        with self._lock:
            stream, self._resting = self._resting, None
            is_fresh = self._clock() - self._since < _RESTS
        if stream is None:
            return None
        if not is_fresh or stream.prefetch != prefetch:
            stream.close()
            return None
        stream.go_on()
        return stream

    def keep(self, stream: OpenStream) -> None:
        """Let a reader rest that has read all of a model; close the one that rested before."""
        with self._lock:
            before, self._resting = self._resting, stream
            self._since = self._clock()
        if before is not None:
            before.close()

    def look(self) -> None:
        """Close a reader that has rested for long. Call it periodically."""
        with self._lock:
            if self._resting is None or self._clock() - self._since < _RESTS:
                return
            stream, self._resting = self._resting, None
        stream.close()
