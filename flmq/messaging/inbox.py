"""Receiving: decode deliveries to `Incoming` messages; dead-letter what cannot be decoded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass

from flmq.common.errors import MalformedMessage, PeerError
from flmq.common.logger import logger
from flmq.common.rare_lines import RareLines
from flmq.e2e.errors import Mismatch
from flmq.messaging.deadletters import DeadLetterLimit, sender_of
from flmq.messaging.protection import PLAIN, Encoded, Plain, Protection
from flmq.messaging.sender import Sender
from flmq.transport import Consumer, Delivery, PublishOutcome
from flmq.wire import BlobChunk, Body, blob_chunk_of, decode

__all__ = ["Inbox", "Incoming"]

_MISMATCHES = 1000
"""Maximum number of clients and jobs of which it is remembered that it was said."""
_UNTOLD = "of a protected job: why it is here is in the log of the process that read it"
"""What a dead letter says where its reader does not trust the broker: a reason may quote what was
sealed, or the digest of what was encrypted."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A decoded envelope or a blob's chunk, with the delivery that brought it."""

    body: Body | BlobChunk
    bytes: int
    """Size in bytes of the encoded envelope, or of the chunk."""
    delivery: Delivery
    """What to ack once the message is dealt with."""
    opened: Encoded | None = None
    """Its envelope's bytes without their protection, where that is not the message's body."""

    @property
    def encoded(self) -> Encoded:
        """The bytes that ``body`` was decoded from, without protection."""
        return self.delivery.message.body if self.opened is None else self.opened


class Inbox:
    """Receive envelopes from one consumer. `receive` is for one thread, `ack` for any."""

    def __init__(
        self,
        consumer: Consumer,
        sender: Sender,
        *,
        on_dead: Callable[[str], None] | None = None,
        largest: Mapping[str, int] | None = None,
        protection: Protection = PLAIN,
        rejects: bool = False,
        check: Callable[[Incoming], str] = lambda incoming: "",
    ) -> None:
        """Read from ``consumer``; dead letters are sent through ``sender``.

        ``on_dead`` is called with each reason. ``largest`` limits the bytes of messages by queue,
        for queues of small messages: larger ones are not even decoded. With ``rejects`` dead
        letters go where their queue sends what is rejected: its readers may not publish there.
        ``check`` returns why a message is dead-lettered unseen; empty if it is not. ``protection``
        opens envelopes; those of ends with other keys are dropped, and said once each.
        """
        self._protection = protection
        self._mismatches: dict[tuple[type[Mismatch], str], None] = {}
        self._consumer = consumer
        self._sender = sender
        self._on_dead = on_dead
        self._largest = largest or {}
        self._rejects = rejects
        self._check = check
        self._limit = DeadLetterLimit()
        self._lines = RareLines()
        self.mismatched = 0
        """Number of messages dropped as their sender and this end do not agree on keys."""

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
            chunk = blob_chunk_of(message.headers, message.body)
            if chunk is not None:
                incoming = Incoming(chunk, len(message.body), delivery)
            else:
                opened = self._protection.open(decode(message.body), delivery)
                incoming = Incoming(opened.body, len(message.body), delivery, opened.encoded)
        except Mismatch as mismatch:
            self._drop(delivery, mismatch)
            return None
        except PeerError as error:
            self._bury(delivery, str(error))
            return None
        if problem := self._check(incoming):
            self._bury(delivery, problem)
            return None
        return incoming

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

    def _drop(self, delivery: Delivery, mismatch: Mismatch) -> None:
        """Drop a message of an end with other keys; say so once of each client or job.

        It is no dead letter: such an end may say hello for days, and a person has to decide.
        """
        self.mismatched += 1
        key = type(mismatch), mismatch.subject
        if key not in self._mismatches:
            if len(self._mismatches) >= _MISMATCHES:
                del self._mismatches[next(iter(self._mismatches))]
            self._mismatches[key] = None
            logger.warning("%s", mismatch)
            if self._on_dead is not None:
                self._on_dead(str(mismatch))
        self._consumer.ack(delivery)

    def _bury(self, delivery: Delivery, reason: str) -> None:
        """Move a delivery to the dead-letter queue, and ack it once it is there.

        Only a sample of a flood is moved, with the number of the others: see `DeadLetterLimit`.
        """
        if self._on_dead is not None:
            self._on_dead(reason)
        sender = sender_of(delivery)
        if not self._limit.admits(sender, delivery.queue, reason):
            self._consumer.ack(delivery)
            return
        self._lines.warn(f"message from {delivery.queue} to flmq.dead, sent by {sender}: {reason}")
        if self._rejects:
            self._consumer.reject(delivery, requeue=False)
            return

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

        told = reason if isinstance(self._protection, Plain) else _UNTOLD
        self._sender.dead_letter(delivery, told).add_done_callback(moved)
