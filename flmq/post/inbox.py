"""The way in: deliveries become letters; what cannot be decoded goes to the dead letters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from flmq.common.errors import MalformedMessage, PeerError
from flmq.common.logger import logger
from flmq.post.deadletters import DeadLetterLimit
from flmq.post.outbox import Outbox
from flmq.transport import Consumer, Delivery, PublishOutcome
from flmq.wire import (
    Assembler,
    BlobChunk,
    Body,
    Chunk,
    blob_chunk_of,
    chunk_from_headers,
    decode,
)

__all__ = ["Inbox", "Letter"]


@dataclass(frozen=True, slots=True)
class Letter:
    """An envelope's body, or a blob's chunk, and the deliveries that brought it."""

    body: Body | BlobChunk
    bytes: int
    """Length of the encoded envelope, or of the chunk."""
    deliveries: tuple[Delivery, ...]
    """What to ack once it is dealt with."""

    @property
    def delivery(self) -> Delivery:
        """The delivery that completed it."""
        return self.deliveries[-1]


class Inbox:
    """Takes envelopes from one consumer. `receive` is for one thread, `ack` for any."""

    def __init__(
        self,
        consumer: Consumer,
        outbox: Outbox,
        assembler: Assembler,
        *,
        hold_chunks: bool,
        on_dead: Callable[[str], None] | None = None,
        largest: Mapping[str, int] | None = None,
    ) -> None:
        """Read from ``consumer``; dead letters go out through ``outbox``.

        With ``hold_chunks`` the chunks of an unfinished envelope stay un-acked until it is dealt
        with, so that none is lost with this process; the consumer's prefetch must then hold the
        largest envelope. ``on_dead`` is told each reason. ``largest`` gives the bytes of what is
        taken from a queue at most, for queues of small messages: more is not even decoded.
        """
        self._consumer = consumer
        self._outbox = outbox
        self._assembler = assembler
        self._hold_chunks = hold_chunks
        self._on_dead = on_dead
        self._largest = largest or {}
        self._limit = DeadLetterLimit()
        self._held: dict[tuple[str, str], dict[int, Delivery]] = {}

    def receive(self, timeout: float | None) -> Letter | None:
        """Next envelope; None after ``timeout`` seconds, and after a message that brought none."""
        self._limit.say()
        delivery = self._consumer.receive(timeout)
        if delivery is None:
            return None
        message = delivery.message
        if message.unreadable:
            self._bury(delivery, message.unreadable)
            return None
        try:
            self._check_size(delivery.queue, len(message.body))
            piece = blob_chunk_of(message.headers, message.body)
            if piece is not None:
                return Letter(piece, len(message.body), (delivery,))
            chunk = chunk_from_headers(message.headers, message.body)
            if chunk is not None:
                self._check_size(delivery.queue, chunk.total_bytes)
                return self._add_chunk(delivery, chunk)
            return Letter(decode(message.body), len(message.body), (delivery,))
        except PeerError as error:
            self._bury(delivery, str(error))
            return None

    def ack(self, letter: Letter) -> None:
        """Say that the envelope has been dealt with."""
        for delivery in letter.deliveries:
            self._consumer.ack(delivery)

    def bury(self, letter: Letter, reason: str) -> None:
        """Move an envelope that nobody can use to the dead letters."""
        for delivery in letter.deliveries:
            self._bury(delivery, reason)

    def _check_size(self, queue: str, size: int) -> None:
        largest = self._largest.get(queue)
        if largest is not None and size > largest:
            raise MalformedMessage(f"{size} bytes are more than the {largest} that come here")

    def _bury(self, delivery: Delivery, reason: str) -> None:
        """Move a message to the dead letters, and ack it once it is there.

        Of a flood only a sample, with the number of the others: see `DeadLetterLimit`.
        """
        if self._on_dead is not None:
            self._on_dead(reason)
        if not self._limit.admits(delivery.queue, reason):
            self._consumer.ack(delivery)
            return
        logger.warning("message from %s to %s: %s", delivery.queue, "flmq.dead", reason)

        def moved(outcome: Future[PublishOutcome]) -> None:
            problem = outcome.exception()
            if problem is None and outcome.result() is PublishOutcome.CONFIRMED:
                self._consumer.ack(delivery)
                return
            logger.warning(
                "message from %s is dropped, flmq.dead does not take it: %s",
                delivery.queue,
                problem or "there is no such queue",
            )
            self._consumer.reject(delivery, requeue=False)

        self._outbox.dead_letter(delivery, reason).add_done_callback(moved)

    def _add_chunk(self, delivery: Delivery, chunk: Chunk) -> Letter | None:
        """Add a chunk to its envelope. Each sender's chunks come by a routing key of its own."""
        key = (delivery.routing_key, chunk.digest)
        try:
            data = self._assembler.add(delivery.routing_key, chunk)
        except PeerError:
            self._release(key)
            raise
        if self._hold_chunks:
            held = self._held.setdefault(key, {})
            if (earlier := held.get(chunk.index)) is not None:
                # Sent twice, or delivered again; the ack of a lost connection's is dropped.
                self._consumer.ack(earlier)
            held[chunk.index] = delivery
        elif data is None:
            self._consumer.ack(delivery)
        if data is None:
            return None
        try:
            body = decode(data)
        except PeerError:
            self._held.get(key, {}).pop(chunk.index, None)
            self._release(key)
            raise
        deliveries = tuple(self._held.pop(key).values()) if self._hold_chunks else (delivery,)
        return Letter(body, len(data), deliveries)

    def _release(self, key: tuple[str, str]) -> None:
        """Ack what is held of an envelope that will never be whole."""
        for delivery in self._held.pop(key, {}).values():
            self._consumer.ack(delivery)
