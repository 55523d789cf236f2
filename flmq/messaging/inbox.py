"""Receiving: decode deliveries to `Incoming` messages; dead-letter what cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from flmq.common.errors import MalformedMessage, PeerError
from flmq.common.logger import logger
from flmq.messaging.deadletters import DeadLetterLimit
from flmq.messaging.sender import Sender
from flmq.transport import Consumer, Delivery, PublishOutcome
from flmq.wire import BlobChunk, Body, blob_chunk_of, decode

__all__ = ["Inbox", "Incoming"]


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decoded envelope or a blob's chunk, with the delivery that brought it."""

    body: Body | BlobChunk
    bytes: int
    """Size in bytes of the encoded envelope, or of the chunk."""
    delivery: Delivery
    """What to ack once the message is dealt with."""


class Inbox:
    """Receive envelopes from one consumer. `receive` is for one thread, `ack` for any."""

    def __init__(
        self,
        consumer: Consumer,
        sender: Sender,
        *,
        on_dead: Callable[[str], None] | None = None,
        largest: Mapping[str, int] | None = None,
    ) -> None:
        """Read from ``consumer``; dead letters are sent through ``sender``.

        ``on_dead`` is called with each reason. ``largest`` limits the bytes of messages by queue,
        for queues of small messages: larger ones are not even decoded.
        """
        self._consumer = consumer
        self._sender = sender
        self._on_dead = on_dead
        self._largest = largest or {}
        self._limit = DeadLetterLimit()

    def receive(self, timeout: float | None) -> Incoming | None:
        """Return the next envelope; None after ``timeout`` seconds or an unusable message."""
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
            body = blob_chunk_of(message.headers, message.body) or decode(message.body)
        except PeerError as error:
            self._bury(delivery, str(error))
            return None
        return Incoming(body, len(message.body), delivery)

    def ack(self, incoming: Incoming) -> None:
        """Acknowledge a message that has been dealt with."""
        self._consumer.ack(incoming.delivery)

    def dead_letter(self, incoming: Incoming, reason: str) -> None:
        """Move a message that nobody can use to the dead-letter queue."""
        self._bury(incoming.delivery, reason)

    def _check_size(self, queue: str, size: int) -> None:
        largest = self._largest.get(queue)
        if largest is not None and size > largest:
            raise MalformedMessage(f"{size} bytes are more than the {largest} that come here")

    def _bury(self, delivery: Delivery, reason: str) -> None:
        """Move a delivery to the dead-letter queue, and ack it once it is there.

        Only a sample of a flood is moved, with the number of the others: see `DeadLetterLimit`.
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

        self._sender.dead_letter(delivery, reason).add_done_callback(moved)
