"""Looking at what went over the broker, with a connection of one's own."""

from __future__ import annotations

from collections import Counter

from flmq.transport import MODELS, federation_topology
from flmq.wire import blob_chunk_of
from tests.transport.rigs import Rig

__all__ = ["Stream", "published"]

_BEGINS_WITHIN = 2.0
"""Seconds that a reader of a stream may take to begin."""
_QUIET = 0.3


class Stream(Counter[tuple[str, int]]):
    """How often each chunk, by digest and index, is in the stream of models."""

    total_bytes = 0

    @property
    def digests(self) -> set[str]:
        """The models that are in it."""
        return {digest for digest, _ in self}


def published(rig: Rig) -> Stream:
    """What is in the stream of models."""
    transport = rig.witness()
    transport.declare(federation_topology())
    consumer = transport.consumer([MODELS], prefetch=1000, offset="first")
    found, patience = Stream(), _BEGINS_WITHIN
    while (delivery := consumer.receive(patience)) is not None:
        chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
        assert chunk is not None
        found[chunk.name, chunk.index] += 1
        found.total_bytes += len(chunk.data)
        consumer.ack(delivery)
        patience = _QUIET
    consumer.close()
    return found
