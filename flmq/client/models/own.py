"""Models for one client alone, where they come by its queue of tasks.

That is so on a provisioned virtual host: there a queue costs the broker some milliseconds to make,
and ten thousand clients would each have one more for what few jobs need.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterator

from flmq.messaging import Incoming
from flmq.transport import Consumer, Delivery
from flmq.wire import BlobChunk

__all__ = ["OwnModels", "OwnStream"]


class OwnStream:
    """The chunks of one model, as they come. For one thread at a time."""

    def __init__(self, consumer: Consumer) -> None:
        """Take what ``consumer`` received for it."""
        self._consumer = consumer
        self.heard: queue.SimpleQueue[Delivery] = queue.SimpleQueue()

    def receive(self, timeout: float) -> Delivery | None:
        """Return the next delivery; None after ``timeout`` seconds."""
        try:
            return self.heard.get(timeout=timeout)
        except queue.Empty:
            return None

    def ack(self, delivery: Delivery, missing: int | None) -> None:
        """Ack a chunk, however many are ``missing``."""
        self._consumer.ack(delivery)

    @property
    def arrived(self) -> int:
        """Bytes received over its connection: they grow while a large message is arriving."""
        return self._consumer.arrived


class OwnModels:
    """Hands chunks to those who wait for them. Thread-safe.

    As many wait here as the consumer's prefetch allows, which is what bounds them.
    """

    def __init__(self, consumer: Consumer) -> None:
        """Ack by ``consumer``, which reads clients' queues of tasks."""
        self._consumer = consumer
        self._lock = threading.Lock()
        self._reading: dict[str, OwnStream] = {}

    def hear(self, incoming: Incoming) -> None:
        """Hand a chunk to who waits for it, or drop it: it is late, and is asked for again."""
        assert isinstance(incoming.body, BlobChunk)
        with self._lock:
            stream = self._reading.get(incoming.body.name)
            if stream is not None:
                stream.heard.put(incoming.delivery)
                return
        self._consumer.ack(incoming.delivery)

    @contextlib.contextmanager
    def reading(self, name: str) -> Iterator[OwnStream]:
        """Receive the chunks named ``name``: one reader at a time, which the cache sees to."""
        stream = OwnStream(self._consumer)
        with self._lock:
            self._reading[name] = stream
        try:
            yield stream
        finally:
            with self._lock:
                if self._reading.get(name) is stream:
                    del self._reading[name]
            while (left := stream.receive(0)) is not None:
                self._consumer.ack(left)
