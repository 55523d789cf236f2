"""Sending: encode envelopes to messages, and large parameters to a blob's chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from flmq.common.crashpoints import crash_point
from flmq.common.errors import MessageTooLarge
from flmq.messaging.protection import PLAIN, Protection
from flmq.messaging.sizes import ChunkSize
from flmq.transport import DEAD, Address, Delivery, Message, Publisher, PublishOutcome
from flmq.transport.base import HeaderValue
from flmq.transport.checks import SHORT_STRING_BYTES
from flmq.wire import BlobRef, Body, blob_chunk_headers, iter_chunks

__all__ = ["Sender", "Sent"]

_REASON_BYTES = 1000
_KEPT_HEADERS, _KEPT_HEADER_CHARACTERS = 32, 250
"""Limits of a dead letter's headers: their number, and the characters of each."""
_ROUTING_HEADERS = frozenset({"CC", "BCC"})
"""RabbitMQ would route the dead letter by these headers."""


@dataclass(frozen=True, slots=True)
class Sent:
    """An envelope on its way."""

    bytes: int
    """Size in bytes of the encoded envelope."""
    outcome: Future[PublishOutcome]
    """Resolves when all of it is confirmed or returned, or when any of it has failed."""


class Sender:
    """Send envelopes through one publisher, which it does not close. Thread-safe."""

    def __init__(
        self,
        publisher: Publisher,
        *,
        user_id: str | None = None,
        protection: Protection = PLAIN,
    ) -> None:
        """Send through ``publisher``; the broker validates ``user_id`` if it is given."""
        self._protection = protection
        self._publisher = publisher
        self.user_id = user_id
        """What each message gives as its sender; None: nothing."""
        self._chunk_size = ChunkSize(publisher, user_id, protection.chunk_overhead)

    def send(
        self,
        address: Address,
        body: Body,
        *,
        mandatory: bool = True,
        expiration: float | None = None,
        persistent: bool = True,
        message_id: str = "",
        correlation_id: str = "",
        recipient: str = "",
    ) -> Sent:
        """Encode and publish ``body``; see `Publisher.publish` for what may block or fail.

        ``expiration`` is in seconds; ``correlation_id`` is the id of the message that it answers;
        ``recipient`` is the client that it is for, where ``body`` does not say.

        Raises:
            NoManifest: it would be sealed to a server that was not heard yet (`Protection`).
        """
        data = self._protection.protect(
            body, recipient=recipient, message_id=message_id, correlation_id=correlation_id
        )
        message = Message(
            data,
            type=type(body).__name__,
            message_id=message_id,
            correlation_id=correlation_id,
            user_id=self.user_id,
            expiration=expiration,
            persistent=persistent,
        )
        return Sent(len(data), self._publisher.publish(address, message, mandatory=mandatory))

    @property
    def times_lost(self) -> int:
        """How often the connection was lost: see `Publisher.times_lost`."""
        return self._publisher.times_lost

    def chunk_bytes(self, nobody: Address) -> int:
        """Return the largest chunk to send in bytes: 1 MiB, or the broker's limit.

        Blocks for 30 s at most, once. ``nobody`` is an address where nobody reads (`ChunkSize`).
        """
        return self._chunk_size.get(nobody)

    def cut_smaller(self, refused: MessageTooLarge) -> bool:
        """Learn from a chunk that was refused; return whether `chunk_bytes` is smaller now."""
        return self._chunk_size.learn(refused)

    def send_blob(
        self,
        address: Address,
        ref: BlobRef,
        name: str,
        tensors: Sequence[bytes | memoryview],
        *,
        expiration: float | None = None,
        persistent: bool = True,
    ) -> Sent:
        """Publish a blob's chunks, each under ``name``; the bytes of ``tensors`` are not copied.

        If ``ref`` has a key, each chunk is encrypted as it is sent, which takes a copy of it.
        Blocks while the publisher's window is full, which bounds memory.
        """
        outcomes = []
        for index, data in iter_chunks(ref, tensors):
            message = Message(
                data,
                type="BlobChunk",
                user_id=self.user_id,
                headers=blob_chunk_headers(name, index),
                expiration=expiration,
                persistent=persistent,
            )
            outcomes.append(self._publisher.publish(address, message))
            crash_point("blob.chunk_published")
        return Sent(ref.total, _all(outcomes))

    def dead_letter(self, delivery: Delivery, reason: str) -> Future[PublishOutcome]:
        """Send a message that could not be processed to ``flmq.dead``, for a person to look at.

        Properties that cannot be forwarded are cut, or dropped and counted in a header.
        """
        message = delivery.message
        own: dict[str, HeaderValue] = {
            "x-flmq-reason": _cut(reason, _REASON_BYTES),
            "x-flmq-queue": delivery.queue,
            "x-flmq-exchange": delivery.exchange,
            "x-flmq-routing-key": delivery.routing_key,
        }
        if message.user_id is not None:
            own["x-flmq-user-id"] = message.user_id
        kept = {name: value for name, value in message.headers.items() if _may_stay(name, value)}
        if len(kept) > _KEPT_HEADERS:
            kept = dict(list(kept.items())[:_KEPT_HEADERS])
        if left_out := len(message.headers) - len(kept):
            own["x-flmq-headers-left-out"] = left_out
        dead = Message(
            message.body,
            type=_cut(message.type, SHORT_STRING_BYTES),
            message_id=_cut(message.message_id, SHORT_STRING_BYTES),
            correlation_id=_cut(message.correlation_id, SHORT_STRING_BYTES),
            user_id=self.user_id,
            headers={**kept, **own},
        )
        return self._publisher.publish(Address(DEAD, ""), dead)


def _cut(text: str, size: int) -> str:
    """Return the first ``size`` bytes of a text, as UTF-8."""
    return text.encode(errors="backslashreplace")[:size].decode(errors="ignore")


def _may_stay(name: str, value: HeaderValue) -> bool:
    """Return whether a header is forwarded with a dead letter."""
    if isinstance(value, str | bytes) and len(value) > _KEPT_HEADER_CHARACTERS:
        return False
    return name not in _ROUTING_HEADERS and len(name.encode()) <= SHORT_STRING_BYTES


def _all(outcomes: Iterable[Future[PublishOutcome]]) -> Future[PublishOutcome]:
    """Combine several futures: fails with the first failure, unroutable if any is."""
    waiting = list(outcomes)
    whole: Future[PublishOutcome] = Future()
    lock = threading.Lock()
    left = len(waiting)

    def done(_: Future[PublishOutcome]) -> None:
        nonlocal left
        with lock:
            left -= 1
            if left:
                return
        failed = next((f.exception() for f in waiting if f.exception() is not None), None)
        if failed is not None:
            whole.set_exception(failed)
        elif any(f.result() is PublishOutcome.UNROUTABLE for f in waiting):
            whole.set_result(PublishOutcome.UNROUTABLE)
        else:
            whole.set_result(PublishOutcome.CONFIRMED)

    for outcome in waiting:
        outcome.add_done_callback(done)
    return whole
