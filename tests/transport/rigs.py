"""Makers of transports for the conformance suite, and of what befalls their connections.

A rig stands for one broker and virtual host. Its fault methods mean the same for every
implementation: what they do is told in `Rig`, how is the implementation's affair.
"""

from __future__ import annotations

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from flmq.common.urls import parse_broker_url
from flmq.testing import MemoryBroker, MemoryTransport
from flmq.transport import (
    Address,
    ConnectionEvent,
    ConnectionState,
    Consumer,
    Delivery,
    Message,
    Publisher,
    PublishOutcome,
    Queue,
    QueueType,
    StateListener,
    Topology,
    Transport,
)
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.proxy import Proxy
from tests.rawamqp import RawPublisher
from tests.transport.oddities import Odd

__all__ = [
    "PATIENCE",
    "QUIET",
    "Events",
    "MemoryRig",
    "RabbitMQRig",
    "Rig",
    "bodies",
    "eventually",
    "only",
    "publish_all",
    "queue",
    "take",
    "to",
]

PATIENCE = 15.0
"""Seconds until something that must happen counts as missing: a shared machine can be slow."""
QUIET = 0.1
"""Seconds in which something that must not happen would have happened: a local delivery takes
some 2 ms."""


class Rig(ABC):
    """A broker, and transports on it, closed at the end."""

    user = "guest"

    def __init__(self) -> None:
        self._opened: list[Transport] = []

    def transport(self, listener: StateListener | None = None) -> Transport:
        """Open one."""
        opened = self._open(listener)
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        """Close them all."""
        for opened in reversed(self._opened):
            opened.close()

    @abstractmethod
    def _open(self, listener: StateListener | None) -> Transport: ...

    @abstractmethod
    def witness(self) -> Transport:
        """Open a transport that the faults do not touch where there can be one."""

    @abstractmethod
    def cut(self) -> None:
        """Break every connection once."""

    @abstractmethod
    def down(self) -> None:
        """Break every connection and let none in until `up`."""

    @abstractmethod
    def up(self) -> None:
        """Let connections in again."""

    @abstractmethod
    def lose_confirms(self) -> None:
        """Let no confirm through until the next cut."""

    @abstractmethod
    def lose_acks(self) -> None:
        """Let no ack through until the next cut."""

    @abstractmethod
    def inject(self, address: Address, body: bytes, odd: Odd) -> None:
        """Publish a message as no client library would."""


class MemoryRig(Rig):
    """On a `MemoryBroker`."""

    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker()

    def _open(self, listener: StateListener | None) -> Transport:
        return MemoryTransport(self.broker, listener)

    def witness(self) -> Transport:
        return self.transport()

    def cut(self) -> None:
        self.broker.drop_connections()

    def down(self) -> None:
        self.broker.down()

    def up(self) -> None:
        self.broker.up()

    def lose_confirms(self) -> None:
        self.broker.lose_confirms()

    def lose_acks(self) -> None:
        self.broker.lose_acks()

    def inject(self, address: Address, body: bytes, odd: Odd) -> None:
        self.broker.inject(address, body, unreadable=odd.unreadable, **odd.handed)


class RabbitMQRig(Rig):
    """On a real RabbitMQ, through a proxy."""

    def __init__(self, url: str, options: str = "") -> None:
        super().__init__()
        self.direct = parse_broker_url(url)
        self.user = self.direct.user
        self.proxy = Proxy(self.direct.host, self.direct.port)
        there = f"{self.direct.host}:{self.direct.port}"
        self.url = url.replace(there, f"127.0.0.1:{self.proxy.port}") + options

    def _open(self, listener: StateListener | None) -> Transport:
        return RabbitMQTransport(self.url, name="test", listener=listener)

    def witness(self) -> Transport:
        opened = RabbitMQTransport(self.direct, name="witness")
        self._opened.append(opened)
        return opened

    def close(self) -> None:
        super().close()
        self.proxy.__exit__()

    def cut(self) -> None:
        self.proxy.cut()

    def down(self) -> None:
        self.proxy.refuse()

    def up(self) -> None:
        self.proxy.accept()

    def lose_confirms(self) -> None:
        self.proxy.freeze(to_client=True, to_broker=False)

    def lose_acks(self) -> None:
        self.proxy.freeze(to_client=False, to_broker=True)

    def inject(self, address: Address, body: bytes, odd: Odd) -> None:
        with RawPublisher(self.direct) as publisher:
            publisher.publish(address, body, odd.encoded)


class Events:
    """A listener that remembers, and can be waited for."""

    def __init__(self) -> None:
        self.seen: list[ConnectionEvent] = []
        self._changed = threading.Condition()

    def __call__(self, event: ConnectionEvent) -> None:
        with self._changed:
            self.seen.append(event)
            self._changed.notify_all()

    def clear(self) -> None:
        """Forget what was seen."""
        with self._changed:
            self.seen.clear()

    def wait_for(
        self, role: str, state: ConnectionState, timeout: float = PATIENCE
    ) -> ConnectionEvent:
        """Wait until a connection was seen in a state."""

        def found() -> ConnectionEvent | None:
            return next((e for e in self.seen if e.role == role and e.state is state), None)

        with self._changed:
            event = self._changed.wait_for(found, timeout)
        assert event is not None, f"{role} was not seen {state.value}: {self.seen}"
        return event


def eventually(condition: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Wait for what the broker tells nobody about, asking again and again."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "this did not come to pass"
        time.sleep(0.02)


def queue(
    name: str,
    *,
    kind: QueueType = QueueType.CLASSIC,
    exclusive: bool = False,
    durable: bool = True,
    **arguments: bool | int | str,
) -> Topology:
    """Topology of one queue; arguments are written ``x_max_length=3``."""
    named = {key.replace("_", "-"): value for key, value in arguments.items()}
    return Topology(queues=(Queue(name, kind, durable, exclusive, named),))


def to(name: str) -> Address:
    """Address of a queue, by the default exchange."""
    return Address("", name)


def publish_all(publisher: Publisher, address: Address, *contents: bytes) -> None:
    """Publish, and see each one confirmed."""
    futures = [publisher.publish(address, Message(content)) for content in contents]
    assert [future.result(PATIENCE) for future in futures] == [PublishOutcome.CONFIRMED] * len(
        contents
    )


def take(consumer: Consumer, count: int, *, ack: bool = False) -> list[Delivery]:
    """Receive ``count`` deliveries."""
    taken: list[Delivery] = []
    for number in range(count):
        delivery = consumer.receive(PATIENCE)
        assert delivery is not None, f"only {number} of {count} messages came: {bodies(taken)}"
        taken.append(delivery)
        if ack:
            consumer.ack(delivery)
    return taken


def only(consumer: Consumer, count: int, *, ack: bool = False) -> list[Delivery]:
    """Receive ``count`` deliveries and no more."""
    taken = take(consumer, count, ack=ack)
    assert (extra := consumer.receive(QUIET)) is None, f"one too many came: {extra}"
    return taken


def bodies(deliveries: Sequence[Delivery]) -> list[bytes]:
    """Return what was in them."""
    return [bytes(delivery.message.body) for delivery in deliveries]
