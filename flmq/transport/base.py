"""The transport interface: what flmq needs of a message broker, and no more.

It has two implementations, `flmq.transport.memory` and `flmq.transport.rabbitmq`; both pass the
conformance suite in ``tests/transport``. Code above this interface does not deal with AMQP's
channels, tags or threads.

Delivery is at least once: a message is delivered again when its consumer dies, loses its connection
or returns it. Order holds within a queue, except for messages delivered again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from types import TracebackType
from typing import Literal, Self

from flmq.transport.topology import Topology

__all__ = [
    "STREAM_OFFSET_HEADER",
    "Address",
    "ConnectionEvent",
    "ConnectionState",
    "Consumer",
    "Delivery",
    "Message",
    "PublishOutcome",
    "Publisher",
    "QueueInfo",
    "StateListener",
    "StreamOffset",
    "Transport",
    "offset_of",
]

HeaderValue = bool | int | str | bytes
"""Types of header values; integers of 64 bits. pika sends no floats: put them in the body."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message is published: an exchange and a routing key."""

    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Message:
    """A message: opaque bytes and the few AMQP properties that flmq uses."""

    body: bytes | memoryview
    """If a read-only view, its bytes must not change until the message's outcome is known."""
    type: str = ""
    message_id: str = ""
    correlation_id: str = ""
    user_id: str | None = None
    """Sender, validated by the broker (RabbitMQ, validated user-id); None if not set."""
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    expiration: float | None = None
    """Seconds after which a queue drops the message; None to keep it without limit."""
    persistent: bool = True
    """Whether it survives a broker restart, in a durable queue."""
    copied: bool = False
    """Whether a delivered message was sent to further routing keys, in RabbitMQ's headers CC or
    BCC, on which up to RabbitMQ 3.13 no permission is asked."""
    unreadable: str = ""
    """Why a delivered message's properties could not be read and are defaults; else empty."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message received from a queue, to be acked or rejected by the consumer that received it."""

    message: Message
    queue: str
    redelivered: bool
    """A hint only: True after any return, and for messages recovered by a broker's restart."""
    tag: object
    """Private to the consumer. A tag of a lost connection is stale: see Consumer.ack."""
    exchange: str = ""
    routing_key: str = ""


class PublishOutcome(Enum):
    """Outcome of publishing a message."""

    CONFIRMED = "confirmed"
    """The broker has taken responsibility for it in every queue it was routed to."""
    UNROUTABLE = "unroutable"
    """Mandatory, but no queue is bound for it: the message is gone."""


class ConnectionState(Enum):
    """State of a connection to the broker."""

    CONNECTED = "connected"
    LOST = "lost"
    """Broken; being retried, with jittered backoff, forever."""
    BLOCKED = "blocked"
    """Connected, but the broker holds us back (memory or disk alarm, a permission that was taken
    away, a queue whose node is down); waits until it stops."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A change of a connection's state, to show to people."""

    role: str
    """Which connection: "publisher", "consumer", or "control", which declares and inspects, and
    holds exclusive queues and their consumers. Empty: all of them, as `OutageReporter` tells."""
    state: ConnectionState
    detail: str = ""
    """One line: the reason, and the seconds until the next try, if any."""
    number: int = 0
    """Distinguishes a transport's connections of the same role."""


StateListener = Callable[[ConnectionEvent], None]
"""Called on the connection's own thread: it must return quickly and not call the transport."""

StreamOffset = int | datetime | Literal["first", "last", "next"]
"""Where to start reading a stream: an offset, a time (to the second), an end, or new messages only.

An offset or time that the stream no longer keeps means its first message (RabbitMQ, streams); one
that it has not reached is waited for, also by a reader whose stream was deleted and made anew.
"""

STREAM_OFFSET_HEADER = "x-stream-offset"
"""Header of each message read from a stream: its offset, an int."""


def offset_of(delivery: Delivery) -> int | None:
    """Return the offset of a message that was read from a stream; None if it is unreadable."""
    offset = delivery.message.headers.get(STREAM_OFFSET_HEADER)
    return offset if isinstance(offset, int) else None


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A snapshot of a queue, outdated at once: no more than a hint."""

    name: str
    messages_ready: int
    consumers: int


class Publisher(ABC):
    """Publish with confirms, in order, over a connection of its own. Thread-safe."""

    times_lost: int = 0
    """How often its connection was lost. If the broker went with it, so did every message that is
    not persistent, confirmed or not."""

    @abstractmethod
    def publish(
        self, address: Address, message: Message, *, mandatory: bool = True
    ) -> Future[PublishOutcome]:
        """Send ``message``; the future resolves to its outcome.

        Any thread may call it. Blocks only while the window of unconfirmed bytes or messages is
        full. While the connection is lost or blocked, messages wait and are sent again after
        reconnection: a message may then arrive twice. A nack (queue full, no quorum) is retried
        internally with backoff, and so is a message that we have no permission to write, since it
        may be granted soon; listeners are told. One message's failure never fails another's future.

        The future raises:
            BrokerRefusal: no such exchange; `MessageTooLarge` above the broker's max_message_size.
            TransportClosed: closed before the message was confirmed.
        """

    @abstractmethod
    def close(self, *, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for outstanding confirms, then close. Idempotent."""


class Consumer(ABC):
    """Receive messages from queues over a connection of its own.

    `receive` is for one thread; `ack` and `reject` may be called from any.
    """

    @abstractmethod
    def receive(self, timeout: float | None = None) -> Delivery | None:
        """Return the next delivery, or None after ``timeout`` seconds (None: wait without limit).

        Connection loss, a cancelled consumer, a deleted queue (declared again if this transport had
        declared it) and a revoked permission are handled internally: the un-acked messages are
        delivered again.

        Raises:
            TransportClosed: after `close`, also in a thread that is waiting.
            BrokerRefusal: a queue that others declared is gone, and we are not patient.
            ResourceLocked: after a reconnection, another consumer holds the queue exclusively for
                longer than a dead connection of our own could.
        """

    @abstractmethod
    def ack(self, delivery: Delivery) -> None:
        """Tell the broker that it may forget the message. Returns without waiting.

        An ack for a delivery of a lost connection is dropped and logged, as the message will be
        delivered again; acks can be lost in a broker crash, so duplicates are normal.
        """

    @abstractmethod
    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Return the message to its queue (``requeue``) or drop it to the dead-letter exchange."""

    @property
    @abstractmethod
    def arrived(self) -> int:
        """Bytes that have come over its connection so far, with those of a message in parts.

        A hint whether a large message is arriving over a slow link. Begins anew after a loss, and
        counts what else the connection carries.
        """

    @abstractmethod
    def close(self) -> None:
        """Stop consuming; un-acked messages go back to their queues. Idempotent."""


class Transport(ABC):
    """A virtual host of a broker, as one process uses it. Thread-safe.

    Creating one connects, or raises `BrokerUnavailable` or `BrokerAccessRefused` at once;
    afterwards a lost connection is retried forever, and listeners are told.
    """

    user: str
    """The name by which the broker knows us: the only one that a message may give as its sender."""

    @abstractmethod
    def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings. Blocks until done; idempotent.

        A queue whose amounts alone differ (`AMOUNTS`) is used as it is, with a warning. Exclusive
        queues belong to this transport, and live until it is closed or its process ends; after a
        lost connection they are declared again.

        Raises:
            ResourceLocked: an exclusive queue belongs to another live connection.
            BrokerRefusal: something of that name exists with other properties.
            BrokerAccessRefused: a permission is missing.
        """

    @abstractmethod
    def delete_queue(self, name: str) -> None:
        """Delete a queue and its messages; no error if there is none."""

    @abstractmethod
    def inspect_queue(self, name: str) -> QueueInfo | None:
        """Return a queue's counts; None if there is none. Restarts an unused queue's expiry."""

    @abstractmethod
    def has_exchange(self, name: str) -> bool:
        """Return whether there is an exchange of that name, which takes no permission to ask.

        Where the broker wants one for it (RabbitMQ from 4.2.6 on) and we have none, there is.
        """

    @abstractmethod
    def publisher(self) -> Publisher:
        """Open a publisher on a connection of its own."""

    @abstractmethod
    def consumer(
        self,
        queues: Sequence[str],
        *,
        prefetch: int,
        each: int = 0,
        exclusive: bool = False,
        offset: StreamOffset | None = None,
        patient: bool = False,
    ) -> Consumer:
        """Consume ``queues``, with at most ``prefetch`` (1 to 65535) un-acked deliveries in all.

        Of every queue ``each`` are let in, however many queues there are: what lies behind an
        un-acked message is seen. With many queues that is more than ``prefetch``: ``each`` of all.
        With ``exclusive`` nobody else may consume them meanwhile.

        A stream is read from ``offset`` on, which must be given, by any number of consumers, and
        reading removes nothing; after a lost connection reading continues where it was, and acks
        only make room for more.

        ``patient``: a queue that others made, and that is deleted while it is consumed, is waited
        for without limit, and listeners are told; else `receive` raises.

        Raises:
            ResourceLocked: another consumer has a queue exclusively.
            BrokerRefusal: a queue does not exist.
        """

    @abstractmethod
    def close(self) -> None:
        """Close every publisher, consumer and connection opened here. Idempotent.

        Blocks up to 10 s for each publisher with unconfirmed messages; calls that are waiting raise
        `TransportClosed`.
        """

    def __enter__(self) -> Self:
        """Return the transport itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the transport."""
        self.close()
