"""A broker that does to messages what it likes: over the memory transport, and over a RabbitMQ.

Everything that anybody publishes comes to a `Plot` before it is routed, with its address and all
its properties. What the plot returns goes on in its place: nothing, something else, more, or the
same to somebody else; and it may `put` messages of its own at any time. Publishers are told that
all is well, whatever became of their message.

`HostileMemoryBroker` is a `MemoryBroker`. `HostileRabbitMQ` stands before a RabbitMQ and has its
administrator's login: a proxy that has every message published to an exchange of its own, from
where it takes them, and puts them, or others, into those that were meant.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pika

from flmq.broker.ports import free_ports
from flmq.common.urls import BrokerUrl
from flmq.testing import MemoryBroker
from flmq.transport import (
    REPLIES,
    TASKS,
    UPLOADS,
    Address,
    Message,
    federation_topology,
)
from flmq.transport.arriving import message_of
from flmq.transport.rabbitmq.properties import to_properties

__all__ = ["HostileBroker", "HostileMemoryBroker", "HostileRabbitMQ", "Passing", "Plot"]


@dataclass(frozen=True, slots=True)
class Passing:
    """A message on its way through the broker."""

    address: Address
    message: Message

    @property
    def exchange(self) -> str:
        """Where it is published."""
        return self.address.exchange

    @property
    def words(self) -> list[str]:
        """The words of its routing key: site, client, job or other."""
        return self.address.routing_key.split(".")

    @property
    def body(self) -> bytes:
        """Its bytes."""
        return bytes(self.message.body)

    @property
    def is_chunk(self) -> bool:
        """Whether it is a piece of a model or of a large reply."""
        return "x-flmq-blob" in self.message.headers

    def is_to(self, client_id: str) -> bool:
        """Whether it goes to one client's queue."""
        return self.exchange == TASKS and self.words[1:] == [client_id]

    def is_from(self, client_id: str) -> bool:
        """Whether it is a client's reply, or a piece of one."""
        return self.exchange in (REPLIES, UPLOADS) and self.words[1:2] == [client_id]

    def with_body(self, body: bytes) -> Passing:
        """The same with other bytes."""
        return replace(self, message=replace(self.message, body=body))

    def with_message(self, **changes: Any) -> Passing:
        """The same with other properties."""
        return replace(self, message=replace(self.message, **changes))

    def to(self, address: Address) -> Passing:
        """The same to somewhere else."""
        return replace(self, address=address)


class Plot:
    """What is done to messages; this one does nothing but look."""

    def __init__(self) -> None:
        self.done = 0
        """How often it did something."""

    def __call__(self, passing: Passing, broker: HostileBroker) -> Iterable[Passing]:
        """Return what goes on in a message's place; count in `done` if that is not it alone."""
        return [passing]


class HostileBroker(ABC):
    """What both have: a plot, all that was seen, and a hand of its own."""

    def __init__(self) -> None:
        self.plot = Plot()
        self.seen: list[Passing] = []
        """Every message that was published, as it came."""
        self.failed: BaseException | None = None
        """What went wrong in a plot: a test would otherwise pass by it."""

    @abstractmethod
    def put(self, *passings: Passing) -> None:
        """Route messages that nobody sent, or not like this. For any thread."""

    def instead(self, passing: Passing) -> list[Passing]:
        """Return what goes on in a message's place."""
        self.seen.append(passing)
        try:
            return list(self.plot(passing, self))
        except BaseException as error:
            self.failed = error
            return [passing]


class HostileMemoryBroker(HostileBroker, MemoryBroker):
    """A memory broker with a plot."""

    def __init__(self, **options: Any) -> None:
        HostileBroker.__init__(self)
        MemoryBroker.__init__(self, **options)
        self.unanswered: Callable[[Message], bool] = lambda message: False
        """Of which messages it never says what became of them."""

    def publish(self, address: Address, message: Message) -> bool | None:
        """Route what the plot makes of it; what is let through has its true outcome."""
        outcome: bool | None = True
        self.faults.losing_confirms = self.unanswered(message)
        passing = Passing(address, message)
        for each in self.instead(passing):
            if each is passing:
                outcome = super().publish(each.address, each.message)
            else:  # whatever its size: limits are for others
                self.vhost.publish(each.address, each.message)
        return outcome

    def put(self, *passings: Passing) -> None:
        """Route messages at once."""
        with self.scheduler.locked():
            for each in passings:
                self.vhost.publish(each.address, each.message)


_PREFIX = "hostile."
_QUEUE = "hostile"
_BASIC_PUBLISH = struct.pack(">HH", 60, 40)
_METHOD, _HEAD = 1, 7


class HostileRabbitMQ(HostileBroker):
    """Stands before a RabbitMQ; connect to `url`. Use it as a context manager."""

    def __init__(self, broker: BrokerUrl) -> None:
        """``broker`` has the login of an administrator; one who sets user ids is impersonator."""
        super().__init__()
        self._target = (broker.host, broker.port)
        self._closing = False
        self._sockets: list[socket.socket] = []
        self._connection: Any = pika.BlockingConnection(pika.URLParameters(broker.full))
        self._channel = self._connection.channel()
        self._declare()
        self._puppeteer = threading.Thread(target=self._work, name="hostile", daemon=True)
        self._puppeteer.start()
        port = free_ports().amqp
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self._accept, name="hostile", daemon=True).start()
        there = f"{broker.host}:{broker.port}"
        self.url = broker.full.replace(there, f"127.0.0.1:{port}")

    def __enter__(self) -> HostileRabbitMQ:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        self._connection.add_callback_threadsafe(self._channel.stop_consuming)
        self._puppeteer.join(10)
        assert not self._puppeteer.is_alive(), "the hostile broker hangs"

    def put(self, *passings: Passing) -> None:
        """Route messages soon."""
        self._connection.add_callback_threadsafe(lambda: self._route(passings))

    # The broker's hand: on its own thread alone

    def _declare(self) -> None:
        self._channel.queue_declare(_QUEUE)
        for name in ("", *(exchange.name for exchange in federation_topology().exchanges)):
            self._channel.exchange_declare(_PREFIX + name, "fanout")
            self._channel.queue_bind(_QUEUE, _PREFIX + name)
        self._channel.basic_qos(prefetch_count=100)
        self._channel.basic_consume(_QUEUE, self._came)

    def _work(self) -> None:
        try:
            self._channel.start_consuming()
            self._connection.close()
        except BaseException as error:
            self.failed = error

    def _came(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        message = message_of(
            body,
            type_=properties.type,
            message_id=properties.message_id,
            correlation_id=properties.correlation_id,
            user_id=properties.user_id,
            headers=properties.headers,
            expiration=properties.expiration,
            delivery_mode=properties.delivery_mode,
        )
        address = Address(method.exchange.removeprefix(_PREFIX), method.routing_key)
        self._route(self.instead(Passing(address, message)))
        channel.basic_ack(method.delivery_tag)

    def _route(self, passings: Iterable[Passing]) -> None:
        for each in passings:
            self._channel.basic_publish(
                each.exchange,
                each.address.routing_key,
                bytes(each.message.body),
                to_properties(each.message, 0),
            )

    # The proxy

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                broker = socket.create_connection(self._target)
            except OSError:
                return
            self._sockets += [client, broker]
            for work in (_rewriting, _plainly):
                ends = (client, broker) if work is _rewriting else (broker, client)
                threading.Thread(target=_pump, args=(work, *ends), daemon=True).start()


def _pump(work: Callable[[Any, Any], None], source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        work(source, target)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _plainly(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(256 * 1024):
        target.sendall(data)


def _rewriting(source: socket.socket, target: socket.socket) -> None:
    """Forward AMQP frames; what is published is published to the hostile exchange of that name."""
    with source.makefile("rb") as file:
        target.sendall(file.read(8))  # AMQP 0-9-1's greeting
        while len(head := file.read(_HEAD)) == _HEAD:
            kind, channel, size = struct.unpack(">BHI", head)
            payload = file.read(size + 1)
            if kind == _METHOD and payload.startswith(_BASIC_PUBLISH):
                payload = _elsewhere(payload)
                head = struct.pack(">BHI", kind, channel, len(payload) - 1)
            target.sendall(head + payload)


def _elsewhere(payload: bytes) -> bytes:
    """Return the method basic.publish with another exchange: AMQP 0-9-1, 1.8.3.7."""
    start = 6  # class, method, a reserved short
    length = payload[start]
    name = _PREFIX.encode() + payload[start + 1 : start + 1 + length]
    return payload[:start] + bytes([len(name)]) + name + payload[start + 1 + length :]
