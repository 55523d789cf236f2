"""The transport over RabbitMQ: its connections, publishers and consumers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

from flmq.common.credentials import user_of
from flmq.common.errors import BrokerAccessRefused, BrokerRefusal
from flmq.common.urloptions import check_options, warn_if_unverified
from flmq.common.urls import BrokerUrl, parse_broker_url
from flmq.transport.base import QueueInfo, StateListener, StreamOffset, Transport
from flmq.transport.checks import check_exclusive, check_offset, check_prefetch, check_queues
from flmq.transport.closed import transport_closed
from flmq.transport.declared import Declared
from flmq.transport.rabbitmq import channel_ops as steps
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.consumer import RabbitMQConsumer
from flmq.transport.rabbitmq.control import Control
from flmq.transport.rabbitmq.errors import reply_code
from flmq.transport.rabbitmq.parameters import heartbeat_of
from flmq.transport.rabbitmq.publisher import RabbitMQPublisher
from flmq.transport.rabbitmq.subscription import Subscription
from flmq.transport.rabbitmq.together import Together
from flmq.transport.retry import current_pace, while_locked
from flmq.transport.topology import Topology
from flmq.transport.window import MAX_BYTES, MAX_MESSAGES, Window

__all__ = ["RabbitMQTransport"]


class RabbitMQTransport(Transport):
    """A virtual host of a RabbitMQ, 3.10 to 4.x."""

    def __init__(
        self,
        url: str | BrokerUrl,
        *,
        name: str = "",
        listener: StateListener | None = None,
        max_unconfirmed: int = MAX_MESSAGES,
        max_unconfirmed_bytes: int = MAX_BYTES,
    ) -> None:
        """Connect.

        ``url`` is ``amqp://user:password@host:port/vhost`` or ``amqps://...``, with options for
        times, TLS and the login (docs/broker.md). RabbitMQ's tools show ``name``. The listener is
        called with each change of each connection's state, on the connection's thread: it must not
        block. ``max_unconfirmed`` messages and ``max_unconfirmed_bytes`` bound each publisher's
        window.

        Raises:
            InvalidBrokerUrl, AmbiguousLogin: the URL or the environment cannot be used.
            BrokerUnavailable: nobody answers.
            BrokerAccessRefused: wrong credentials or virtual host.
        """
        self._url = parse_broker_url(url) if isinstance(url, str) else url
        check_options(self._url)
        warn_if_unverified(self._url)
        self.user = user_of(self._url)
        self._name = name
        self._listener = listener
        self._window = (max_unconfirmed, max_unconfirmed_bytes)
        self._declared = Declared()
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._publishers: list[RabbitMQPublisher] = []
        self._consumers: list[RabbitMQConsumer] = []
        self._connections: list[IOConnection] = []
        """Connections of publishers and consumers, also while they are being opened."""
        self._together = Together()
        self._connection = self._new_connection("control")
        self._control = Control(self._connection, self._declared)
        self._connection.open()

    def __repr__(self) -> str:
        """Show the URL without the password."""
        return f"RabbitMQTransport({self._url})"

    def declare(self, topology: Topology) -> None:
        """Declare exchanges, queues and bindings."""
        for attempt in while_locked(self._closed):
            with attempt:
                self._control.declare(topology)
        self._declared.add(topology)

    def delete_queue(self, name: str) -> None:
        """Delete a queue and its messages."""
        self._declared.forget_queue(name)
        self._control.call(partial(steps.delete_queue, name))

    def inspect_queue(self, name: str) -> QueueInfo | None:
        """Return a queue's counts; None if there is none."""
        try:
            return self._control.call(partial(steps.inspect_queue, name))
        except BrokerRefusal as refusal:
            if reply_code(refusal.__cause__) == 404:
                return None
            raise

    def has_exchange(self, name: str) -> bool:
        """Return whether there is an exchange of that name."""
        try:
            self._control.call(partial(steps.find_exchange, name))
        except BrokerAccessRefused:
            return True
        except BrokerRefusal as refusal:
            if reply_code(refusal.__cause__) == 404:
                return False
            raise
        return True

    def publisher(self) -> RabbitMQPublisher:
        """Open a publisher on a connection of its own."""
        connection = self._connect("publisher")
        publisher = RabbitMQPublisher(
            connection, self._control, Window(*self._window), self._forget_publisher
        )
        with self._lock:
            self._publishers.append(publisher)
        if self._closed.is_set():
            publisher.close(timeout=0.0)
            raise transport_closed()
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
    ) -> RabbitMQConsumer:
        """Consume ``queues``.

        RabbitMQ counts prefetch per queue, so each gets a share, at least ``each``. Exclusive
        queues can only be consumed over the connection that declared them, so their consumers use
        the control connection. So do readers of streams, which are opened for one model and then
        closed: opening a connection for each took longer than transferring 5 MB.
        """
        check_prefetch(prefetch, each)
        queues = check_queues(queues)
        known = [self._declared.queue(name) for name in queues]
        for queue in known:
            check_exclusive(queue, exclusive=exclusive)
            check_offset(queue, offset)
        on_control = offset is not None or any(
            queue is not None and queue.exclusive for queue in known
        )
        consumer = RabbitMQConsumer(
            self._connection if on_control else self._connect("consumer"),
            self._control,
            Subscription(
                queues=queues,
                prefetch=prefetch,
                each=each,
                exclusive=exclusive,
                offset=offset,
                lock_patience=max(current_pace().lock, 3 * heartbeat_of(self._url)),
                declared=lambda name: self._declared.queue(name) is not None,
                patient=patient,
            ),
            owns_connection=not on_control,
            on_close=self._forget_consumer,
        )
        with self._lock:
            if self._closed.is_set():  # close() has run already and would not close it
                raise transport_closed()
            self._consumers.append(consumer)
        try:
            consumer.open()
        except BaseException:
            consumer.close()
            raise
        return consumer

    def close(self) -> None:
        """Close every publisher, consumer and connection opened here."""
        with self._lock:
            self._closed.set()
            publishers, consumers = list(self._publishers), list(self._consumers)
            connections = list(self._connections)
        for publisher in publishers:
            publisher.close()
        for consumer in consumers:
            consumer.close()
        self._control.close()
        for connection in (*connections, self._connection):
            connection.close()

    def _connect(self, role: str) -> IOConnection:
        with self._lock:
            if self._closed.is_set():
                raise transport_closed()
            connection = self._new_connection(role)
            self._connections = [one for one in self._connections if not one.is_ended]
            self._connections.append(connection)
        connection.open(patient=True)
        return connection

    def _new_connection(self, role: str) -> IOConnection:
        return IOConnection(
            self._url, role, self._together, name=self._name, listener=self._listener
        )

    def _forget_publisher(self, publisher: RabbitMQPublisher) -> None:
        with self._lock:
            self._publishers.remove(publisher)

    def _forget_consumer(self, consumer: RabbitMQConsumer) -> None:
        with self._lock:
            self._consumers.remove(consumer)
