"""The transport interface: what flmq needs of a message broker, and no more.

Two implementations stand behind it, `flmq.transport.memory` and `flmq.transport.rabbitmq`; both
pass the conformance suite in ``tests/transport``. Above this interface nobody knows AMQP's
channels, tags or threads.

Delivery is at least once: a message is delivered again when its consumer dies, loses its
connection or returns it. Order holds within a queue, except for messages delivered again.
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
"""What a header may hold; integers of 64 bits. pika sends no floats: they belong in the body."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message is published: an exchange and a routing key."""

    exchange: str
    routing_key: str


@dataclass(frozen=True, slots=True)
class Message:
    """One message as it travels: opaque bytes and the few AMQP properties flmq uses."""

    body: bytes | memoryview
    """What a read-only view shows must stay as it is until the message's fate is known."""
    type: str = ""
    message_id: str = ""
    correlation_id: str = ""
    user_id: str | None = None
    """Sender as the broker validated it (RabbitMQ, validated user-id); None: not stated."""
    headers: Mapping[str, HeaderValue] = field(default_factory=dict)
    expiration: float | None = None
    """Seconds a queue may hold the message before it drops it; None: for ever."""
    persistent: bool = True
    """Whether it survives a broker restart, in a durable queue."""
    unreadable: str = ""
    """Why the properties of one that was delivered could not be read: all are at their defaults."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message taken from a queue, to be acked or rejected by the consumer that got it."""

    message: Message
    queue: str
    redelivered: bool
    """A hint only: True after any return, and for what a broker recovered at its restart."""
    tag: object
    """Known to the consumer alone. A tag of a lost connection is stale: see Consumer.ack."""
    exchange: str = ""
    routing_key: str = ""


class PublishOutcome(Enum):
    """What became of a message that was published."""

    CONFIRMED = "confirmed"
    """The broker has taken responsibility for it in every queue it was routed to."""
    UNROUTABLE = "unroutable"
    """Mandatory, and no queue is bound for it: nobody has it."""


class ConnectionState(Enum):
    """What a connection to the broker is doing."""

    CONNECTED = "connected"
    LOST = "lost"
    """Broken; being retried, with jittered backoff, without end."""
    BLOCKED = "blocked"
    """The broker is there and holds us back (memory or disk alarm, a permission that was taken
    away, a queue whose node is down); waits until it stops."""
    CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ConnectionEvent:
    """A change of a connection's state, for people to see."""

    role: str
    """Which connection: "publisher", "consumer", or "control", which declares and inspects, and
    holds exclusive queues and their consumers. Empty: all of them, as `OutageReporter` tells."""
    state: ConnectionState
    detail: str = ""
    """One line: the reason, and the seconds until the next try where there is one."""
    number: int = 0
    """Tells a transport's connections of one role from each other."""


StateListener = Callable[[ConnectionEvent], None]
"""Called on the connection's own thread: it must return soon and not call the transport."""

StreamOffset = int | datetime | Literal["first", "last", "next"]
"""Where to begin to read a stream: an offset, a time (to the second), its ends, or what comes next.

An offset or time that the stream no longer keeps means its first message (RabbitMQ, streams); one
that it has not reached is waited for, also by a reader whose stream was deleted and made anew.
"""

STREAM_OFFSET_HEADER = "x-stream-offset"
"""Header of each message read from a stream: its offset, an int."""


def offset_of(delivery: Delivery) -> int | None:
    """Return the offset of a message that was read from a stream; None where it is unreadable."""
    offset = delivery.message.headers.get(STREAM_OFFSET_HEADER)
    return offset if isinstance(offset, int) else None


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """A glance at a queue: true a moment ago, a hint at most."""

    name: str
    messages_ready: int
    consumers: int


class Publisher(ABC):
    """Publishes with confirms, in order, over a connection of its own. Thread-safe."""

    @abstractmethod
    def publish(
        self, address: Address, message: Message, *, mandatory: bool = True
    ) -> Future[PublishOutcome]:
        """Send ``message``; the future resolves when its fate is known.

        Blocks only while the window of unconfirmed bytes or messages is full; any thread may
        call it. While the connection is lost or blocked, messages wait and are sent again after
        reconnection: a message may then arrive twice. A nack (queue full, no quorum) is retried
        with backoff inside, and so is a message that we have no permission to write, for it may
        be on its way; listeners are told. The future fails with `BrokerRefusal` (no such exchange,
        larger than the broker's max_message_size: `MessageTooLarge`) or `TransportClosed` (closed
        before it was confirmed); one message's failure never fails another's future.
        """

    @abstractmethod
    def close(self, *, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for outstanding confirms, then close. Idempotent."""


class Consumer(ABC):
    """Takes messages from queues over a connection of its own.

    `receive` is for one thread; `ack` and `reject` may be called from any.
    """

    @abstractmethod
    def receive(self, timeout: float | None = None) -> Delivery | None:
        """Next delivery, or None after ``timeout`` seconds (None: wait without end).

        Connection loss, a cancelled consumer and a deleted queue (declared again, when this
        transport had declared it) are ridden out inside: the un-acked messages come again; so is
        a permission that is taken away and given back. Raises `TransportClosed` after `close`,
        also to a thread that waits; `BrokerRefusal` when a queue that others declared is gone;
        `ResourceLocked` when after a reconnection another consumer holds the queue exclusively for
        longer than a dead connection of our own could.
        """

    @abstractmethod
    def ack(self, delivery: Delivery) -> None:
        """Tell the broker that it may forget the message. Does not wait for it.

        An ack for a delivery of a lost connection is dropped and logged, for the message
        will be delivered again; acks can be lost in a broker crash, so duplicates are normal.
        """

    @abstractmethod
    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Give the message back (``requeue``) or drop it to the queue's dead-letter exchange."""

    @abstractmethod
    def close(self) -> None:
        """Stop consuming; what is un-acked goes back to its queue. Idempotent."""


class Transport(ABC):
    """A broker's virtual host, as one process sees it. Thread-safe.

    Opening one connects, and raises at once `BrokerUnavailable` or `BrokerAccessRefused`;
    afterwards a lost connection is retried for ever, and listeners are told.
    """

    @abstractmethod
    def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings. Blocks until done; idempotent.

        Raises `ResourceLocked` when an exclusive queue belongs to another live connection,
        `BrokerRefusal` when something of that name exists in another form (a queue that differs in
        its amounts alone is used as it is, with a warning: `AMOUNTS`), and
        `BrokerAccessRefused`. Exclusive queues belong to this transport, and live until it is
        closed or its process ends; after a lost connection they are declared again.
        """

    @abstractmethod
    def delete_queue(self, name: str) -> None:
        """Delete a queue and what it holds; no error when there is none."""

    @abstractmethod
    def inspect_queue(self, name: str) -> QueueInfo | None:
        """Look at a queue; None when there is none. Counts as use where unused queues expire."""

    @abstractmethod
    def publisher(self) -> Publisher:
        """Open a publisher on a connection of its own."""

    @abstractmethod
    def consumer(
        self,
        queues: Sequence[str],
        *,
        prefetch: int,
        exclusive: bool = False,
        offset: StreamOffset | None = None,
    ) -> Consumer:
        """Consume ``queues``, with at most ``prefetch`` (1 to 65535) deliveries un-acked in all.

        With ``exclusive`` nobody else may consume them meanwhile. Raises `ResourceLocked` when
        another consumer has them exclusively, `BrokerRefusal` when a queue does not exist.

        A stream is read from ``offset`` on, which must be given, by any number of consumers, none
        of which takes anything away; after a lost connection reading goes on where it was, and
        acks only make room for more.
        """

    @abstractmethod
    def close(self) -> None:
        """Close every publisher, consumer and connection opened here. Idempotent.

        Blocks up to 10 s for each publisher that has messages outstanding; who waits for anything
        here gets `TransportClosed`.
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
        """Close."""
        self.close()
