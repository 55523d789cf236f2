"""The transport over a `MemoryBroker`, with connections that can be lost."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from flmq.common.errors import BrokerUnavailable, FlmqError
from flmq.transport.base import (
    ConnectionEvent,
    ConnectionState,
    QueueInfo,
    StateListener,
    StreamOffset,
    Transport,
)
from flmq.transport.checks import check_prefetch, check_queues
from flmq.transport.closed import transport_closed
from flmq.transport.declared import Declared
from flmq.transport.memory.broker import MemoryBroker
from flmq.transport.memory.consumer import MemoryConsumer
from flmq.transport.memory.publisher import MemoryPublisher
from flmq.transport.retry import Backoff, current_pace
from flmq.transport.topology import Topology

__all__ = ["MemoryTransport"]


class MemoryTransport(Transport):
    """A `MemoryBroker` as one process uses it."""

    def __init__(
        self,
        broker: MemoryBroker,
        listener: StateListener | None = None,
        *,
        name: str = "",
        user: str = "guest",
    ) -> None:
        """Connect as ``user``, against which the broker checks each message's ``user_id``.

        Raises:
            BrokerUnavailable: the broker is down.
        """
        self.broker = broker
        self.user = user
        self.name = name
        self._listener = listener
        self._closed = False
        self._declared = Declared()
        self._backoff = Backoff()
        self._publishers: list[MemoryPublisher] = []
        self._consumers: list[MemoryConsumer] = []
        self._connected = threading.Condition(broker.scheduler.lock)
        with broker.scheduler.locked():
            if not broker.is_up:
                raise BrokerUnavailable("the memory broker is down: call its up()")
            broker.connect(self)
            self._tell("control", ConnectionState.CONNECTED)

    # Transport

    def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings."""
        with self.broker.scheduler.locked():
            self._wait_until_up()
            self.broker.vhost.declare(topology, self)
            self._declared.add(topology)

    def delete_queue(self, name: str) -> None:
        """Delete a queue and its messages."""
        with self.broker.scheduler.locked():
            self._wait_until_up()
            self._declared.forget_queue(name)
            self.broker.vhost.delete_queue(name, self)

    def inspect_queue(self, name: str) -> QueueInfo | None:
        """Return a queue's counts; None if there is none."""
        with self.broker.scheduler.locked():
            self._wait_until_up()
            return self.broker.vhost.inspect_queue(name, self)

    def has_exchange(self, name: str) -> bool:
        """Return whether there is an exchange of that name."""
        with self.broker.scheduler.locked():
            self._wait_until_up()
            return self.broker.vhost.has_exchange(name)

    def publisher(self) -> MemoryPublisher:
        """Open a publisher."""
        with self.broker.scheduler.locked():
            self._wait_until_up()
            publisher = MemoryPublisher(self.broker, self.user, self._publisher_closed)
            self._publishers.append(publisher)
            self._tell("publisher", ConnectionState.CONNECTED)
            if self.broker.is_blocked:
                self._tell("publisher", ConnectionState.BLOCKED, "memory or disk alarm")
            return publisher

    def consumer(
        self,
        queues: Sequence[str],
        *,
        prefetch: int,
        each: int = 0,
        exclusive: bool = False,
        offset: StreamOffset | None = None,
        patient: bool = False,
    ) -> MemoryConsumer:
        """Consume ``queues``."""
        check_prefetch(prefetch, each)
        queues = check_queues(queues)
        with self.broker.scheduler.locked():
            self._wait_until_up()
            gone = [name for name in queues if self.broker.vhost.inspect_queue(name, self) is None]
            if gone and all(self._declared.queue(name) is not None for name in gone):
                self.broker.vhost.declare(self._declared.topology(), self)
            self.broker.vhost.open_queues(queues, self, exclusive=exclusive, offset=offset)
            consumer = MemoryConsumer(
                self.broker,
                queues,
                prefetch=prefetch,
                each=each,
                exclusive=exclusive,
                offset=offset,
                on_close=self._consumer_closed,
            )
            consumer.patient = patient
            self._consumers.append(consumer)
            consumer.subscribe()
            self._tell("consumer", ConnectionState.CONNECTED)
            return consumer

    def close(self) -> None:
        """Close every publisher, consumer and connection opened here."""
        for publisher in list(self._publishers):
            publisher.close()
        with self.broker.scheduler.locked():
            if self._closed:
                return
            self._closed = True
            for consumer in list(self._consumers):
                consumer.end()
            self.broker.disconnect(self)
            self._connected.notify_all()
            self._tell("control", ConnectionState.CLOSED)

    # What the broker tells (flmq.transport.memory.broker.Peer)

    def lost(self, reason: str) -> None:
        """Drop every connection."""
        for consumer in self._consumers:
            consumer.lost()
        for publisher in self._publishers:
            publisher.lost()
        self._tell_all(ConnectionState.LOST, f"{reason}; next try when the broker is up")

    def returned(self) -> None:
        """Reconnect: redeclare everything, consume, send what is pending."""
        problem: FlmqError | None = None
        try:
            self.broker.vhost.declare(self._declared.topology(), self)
        except FlmqError as error:
            problem = error
        self._tell_all(ConnectionState.CONNECTED)
        for consumer in list(self._consumers):
            self._resubscribe(consumer, problem)
        for publisher in list(self._publishers):
            publisher.send_pending()
        self._connected.notify_all()

    def blocked(self) -> None:
        """Report that publishers are blocked."""
        for _ in self._publishers:
            self._tell("publisher", ConnectionState.BLOCKED, "memory or disk alarm")

    def unblocked(self) -> None:
        """Unblock publishers."""
        for publisher in list(self._publishers):
            self._tell("publisher", ConnectionState.CONNECTED, "no longer blocked")
            publisher.send_pending()

    def cancelled(self, queue: str) -> None:
        """Redeclare a deleted queue, if it is ours, and consume it again, after a short delay.

        As over RabbitMQ: until then the queue does not exist, and publishers are told so.
        """
        concerned = [consumer for consumer in self._consumers if queue in consumer.subscribed]
        if not concerned:
            return
        for consumer in concerned:
            consumer.lost()
        when = self.broker.scheduler.now() + self._backoff.next()
        self.broker.scheduler.at(when, lambda: self._restore(concerned))

    # Inside

    def _restore(self, consumers: Sequence[MemoryConsumer]) -> None:
        if self._closed or not self.broker.is_up:
            return
        self._backoff.reset()
        problem: FlmqError | None = None
        try:
            self.broker.vhost.declare(self._declared.topology(), self)
        except FlmqError as error:
            problem = error
        for consumer in consumers:
            if consumer in self._consumers and not consumer.subscribed:
                self._resubscribe(consumer, problem)

    def _resubscribe(self, consumer: MemoryConsumer, problem: FlmqError | None) -> None:
        try:
            if problem is not None:
                raise problem
            self.broker.vhost.open_queues(
                consumer.queues, self, exclusive=consumer.exclusive, offset=consumer.offset
            )
        except FlmqError as error:
            if consumer.patient and any(
                self.broker.vhost.find(name) is None for name in consumer.queues
            ):
                self._tell("consumer", ConnectionState.BLOCKED, f"waiting for a queue: {error}")
                when = self.broker.scheduler.now() + current_pace().refused
                self.broker.scheduler.at(when, lambda: self._restore([consumer]))
            else:
                consumer.fail(error)
        else:
            if consumer.patient:
                self._tell("consumer", ConnectionState.CONNECTED, "consuming")
            consumer.subscribe()

    def _wait_until_up(self) -> None:
        while not self._closed and not self.broker.is_up:
            self._connected.wait()
        if self._closed:
            raise transport_closed()

    def _publisher_closed(self, publisher: MemoryPublisher) -> None:
        self._publishers.remove(publisher)
        self._tell("publisher", ConnectionState.CLOSED)

    def _consumer_closed(self, consumer: MemoryConsumer) -> None:
        self._consumers.remove(consumer)
        self._tell("consumer", ConnectionState.CLOSED)

    def _tell_all(self, state: ConnectionState, detail: str = "") -> None:
        self._tell("control", state, detail)
        for _ in self._publishers:
            self._tell("publisher", state, detail)
        for _ in self._consumers:
            self._tell("consumer", state, detail)

    def _tell(self, role: str, state: ConnectionState, detail: str = "") -> None:
        if (listener := self._listener) is not None:
            event = ConnectionEvent(role, state, detail)
            self.broker.scheduler.later(lambda: listener(event))
