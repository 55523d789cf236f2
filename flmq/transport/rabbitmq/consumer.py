"""Consumer over RabbitMQ: a channel that is opened again whenever it is lost.

Each channel is a generation. Tags belong to one; an ack for an older one is dropped, for the
broker has put the message back and delivers it again.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    ResourceLocked,
    TransportClosed,
)
from flmq.transport.arriving import text_of
from flmq.transport.base import (
    STREAM_OFFSET_HEADER,
    Consumer,
    Delivery,
    StreamOffset,
    offset_of,
)
from flmq.transport.rabbitmq.channel_ops import Steps, StepsRun
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.control import Control
from flmq.transport.rabbitmq.errors import reply_code, translate
from flmq.transport.rabbitmq.properties import from_amqp
from flmq.transport.retry import Backoff, current_pace

__all__ = ["RabbitMQConsumer"]

_log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0
_LOCKED_AGAIN_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class _Tag:
    consumer: object
    generation: int
    number: int


@dataclass(frozen=True, slots=True)
class Subscription:
    """What is consumed, and how."""

    queues: tuple[str, ...]
    prefetch: int
    exclusive: bool
    offset: StreamOffset | None
    """Where to begin to read streams."""
    lock_patience: float
    """Seconds for which, after a loss, a dead connection of our own may hold a queue."""
    declared: Callable[[str], bool]
    """Whether a queue was declared by this transport, and so can be again."""


class RabbitMQConsumer(Consumer):
    """Takes messages from queues; made by `RabbitMQTransport.consumer`."""

    def __init__(
        self,
        connection: IOConnection,
        control: Control,
        subscription: Subscription,
        *,
        owns_connection: bool,
        on_close: Callable[[RabbitMQConsumer], None],
    ) -> None:
        """Consume over ``connection``; see `open`."""
        self._connection = connection
        self._control = control
        self._wanted = subscription
        self._owns_connection = owns_connection
        self._on_close = on_close
        self._changed = threading.Condition()
        # Under the lock.
        self._buffer: deque[Delivery] = deque()
        self._handed: set[object] = set()
        self._unsettled: set[object] = set()
        self._settlements: deque[tuple[_Tag, str]] = deque()
        self._generation = 0
        self._problem: BrokerError | None = None
        self._closed = False
        # On the connection's thread alone.
        self._opened: Future[None] = Future()
        self._offsets: dict[str, StreamOffset | None] = dict.fromkeys(
            subscription.queues, subscription.offset
        )
        """Where to go on to read each stream; None: no stream."""
        self._amqp: Any = None
        self._channel: Any = None
        self._backoff = Backoff()
        self._trying_since = time.monotonic()
        self._consuming_since: float | None = None
        self._not_restored: BrokerError | None = None
        self._channel_shut: Future[None] = Future()

    def open(self) -> None:
        """Start, and wait until every queue is being consumed; raise what prevents it."""
        self._connection.attach(self)
        self._opened.result()

    # Consumer

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """Return the next delivery, or None after ``timeout`` seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                if self._closed:
                    raise TransportClosed("the consumer is closed: open another one")
                # The broker counts prefetch per queue, the interface over all of them.
                if self._buffer and len(self._handed) < self._wanted.prefetch:
                    delivery = self._buffer.popleft()
                    self._handed.add(delivery.tag)
                    return delivery
                if self._problem is not None:
                    raise self._problem
                remaining = None if deadline is None else deadline - time.monotonic()
                if remaining is not None and remaining <= 0:
                    return None
                self._changed.wait(remaining)

    def ack(self, delivery: Delivery) -> None:
        """Let the broker forget the message."""
        self._settle(delivery, "ack")

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Give the message back, or drop it to the queue's dead-letter exchange."""
        self._settle(delivery, "requeue" if requeue else "reject")

    def close(self) -> None:
        """Stop consuming; what is un-acked goes back to its queue."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
        self._connection.post(self._shut)
        if self._owns_connection:
            self._connection.close()
        else:
            self._connection.detach(self)
            if not self._connection.is_own_thread():
                _wait(self._channel_shut, _CLOSE_SECONDS)
        self._on_close(self)

    # For the connection's thread (ConnectionUser)

    def connection_up(self, connection: Any) -> None:
        """Open a channel once everything is declared."""
        self._amqp = connection
        self._control.when_ready(lambda: self._connection.post(lambda: self._open(connection)))

    def connection_lost(self, problem: BrokerError) -> None:
        """Forget what was delivered: the broker delivers it again."""
        self._amqp = None
        self._channel_gone()
        if self._closed:
            _finish(self._channel_shut)
        elif isinstance(problem, BrokerRefusal):
            self._fail(problem)  # the broker closed the connection for what we asked

    # Settling

    def _settle(self, delivery: Delivery, verb: str) -> None:
        tag = delivery.tag
        if not isinstance(tag, _Tag) or tag.consumer is not self:
            raise ValueError("a delivery is settled with the consumer that received it")
        with self._changed:
            if tag in self._unsettled:
                self._unsettled.discard(tag)
                self._handed.discard(tag)
                self._settlements.append((tag, verb))
                self._changed.notify()
                if len(self._settlements) == 1:
                    self._connection.post(self._send_settlements)
                return
        _log.info(
            "%s of a delivery from %s dropped: its connection is gone, it will be delivered again",
            verb,
            delivery.queue,
        )

    def _send_settlements(self) -> None:
        with self._changed:
            settlements, self._settlements = self._settlements, deque()
            generation = self._generation
        channel = self._channel
        for tag, verb in settlements:
            if tag.generation != generation or channel is None or not channel.is_open:
                _log.info("%s dropped: the connection was lost, it will be delivered again", verb)
            elif verb == "ack":
                channel.basic_ack(tag.number)
            else:
                channel.basic_reject(tag.number, requeue=verb == "requeue")

    # Channel

    def _open(self, connection: Any) -> None:
        if self._closed or self._problem is not None:
            return
        if connection is self._amqp and connection.is_open and self._channel is None:
            connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        self._channel = channel
        with self._changed:
            self._generation += 1
        channel.add_on_cancel_callback(partial(self._cancelled, channel))
        StepsRun(channel, self._consume(channel), self._consuming, self._connection.url)
        channel.add_on_close_callback(self._channel_closed)

    def _consume(self, channel: Any) -> Steps[None]:
        share = max(1, self._wanted.prefetch // len(self._wanted.queues))
        yield partial(channel.basic_qos, prefetch_count=share)
        for queue in self._wanted.queues:
            yield partial(
                channel.basic_consume,
                queue,
                partial(self._delivered, queue, self._generation),
                exclusive=self._wanted.exclusive,
                arguments=self._arguments(queue),
            )

    def _arguments(self, queue: str) -> dict[str, Any] | None:
        offset = self._offsets[queue]
        return None if offset is None else {STREAM_OFFSET_HEADER: offset}

    def _consuming(self, _: None, error: BrokerError | None) -> None:
        if error is None:
            self._connection.release(self)
            self._consuming_since = time.monotonic()
            _finish(self._opened)

    def _delivered(
        self, queue: str, generation: int, _: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        delivery = Delivery(
            message=from_amqp(properties, body),
            queue=queue,
            redelivered=method.redelivered,
            tag=_Tag(self, generation, method.delivery_tag),
            exchange=text_of(method.exchange),
            routing_key=text_of(method.routing_key),
        )
        with self._changed:
            if generation == self._generation and not self._closed:
                self._read_up_to(delivery, 1)
                self._buffer.append(delivery)
                self._unsettled.add(delivery.tag)
                self._changed.notify()

    def _read_up_to(self, delivery: Delivery, more: int) -> None:
        """Note where in its stream to go on: at a message, or ``more`` behind it."""
        offset = offset_of(delivery)
        if offset is not None and self._offsets[delivery.queue] is not None:
            self._offsets[delivery.queue] = offset + more

    def _cancelled(self, channel: Any, _: Any) -> None:
        """Begin again when the broker ends a consumer: its queue was deleted, or its node left."""
        _log.warning("RabbitMQ cancelled the consumer of %s; beginning again", self._names())
        if channel.is_open:
            channel.close()

    def _channel_closed(self, channel: Any, reason: BaseException) -> None:
        if self._closed:
            _finish(self._channel_shut)
        if self._amqp is None or not self._amqp.is_open:
            return  # connection_lost follows
        self._channel_gone()
        if not self._closed:
            self._begin_again(translate(reason, self._connection.url))

    def _channel_gone(self) -> None:
        self._channel = None
        if self._consuming_since is not None:
            if time.monotonic() - self._consuming_since > current_pace().healthy:
                self._backoff.reset()
            self._trying_since = time.monotonic()
            self._consuming_since = None
        with self._changed:
            self._generation += 1
            for delivery in reversed(self._buffer):
                self._read_up_to(delivery, 0)  # nobody has seen it yet
            self._buffer.clear()
            self._handed.clear()
            self._unsettled.clear()

    def _begin_again(self, problem: BrokerError) -> None:
        """Declare and consume anew, unless ``problem`` says that it is no use."""
        if self._is_final(problem):
            self._fail(problem)
            return
        connection = self._amqp

        def restored(error: BrokerError | None) -> None:
            self._not_restored = error
            self._connection.post(lambda: self._open(connection))

        seconds = self._backoff.next()
        if isinstance(problem, BrokerAccessRefused | BrokerUnavailable):
            self._connection.hold(self, str(problem))
            if isinstance(problem, BrokerAccessRefused):
                seconds = current_pace().refused
        else:
            # While it waits to be opened, whoever asked for it is told, and says so once.
            waits = isinstance(problem, ResourceLocked) and not self._opened.done()
            level = logging.DEBUG if waits else logging.INFO
            _log.log(level, "consumer of %s begins again: %s", self._names(), problem)
        if isinstance(problem, ResourceLocked):
            # Whoever holds it may be gone any moment: who stands by takes over soon after.
            seconds = min(seconds, _LOCKED_AGAIN_SECONDS)
        self._connection.call_later(seconds, lambda: self._control.restore(restored))

    def _is_final(self, problem: BrokerError) -> bool:
        """Whether trying again is no use."""
        tried = time.monotonic() - self._trying_since
        if isinstance(problem, ResourceLocked):
            if not self._opened.done():
                return tried > current_pace().lock
            return tried > self._wanted.lock_patience
        if reply_code(problem.__cause__) == 404:
            ours = all(self._wanted.declared(queue) for queue in self._wanted.queues)
            # One that was deleted again while it was declared is declared once more.
            refused = isinstance(self._not_restored, BrokerRefusal)
            return not ours or (refused and reply_code(self._not_restored) != 404)
        if isinstance(problem, BrokerAccessRefused):
            # What was allowed once may be again; what never was is told to who opens it.
            return not self._opened.done()
        return isinstance(problem, BrokerRefusal)

    def _fail(self, problem: BrokerError) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()
        if not self._opened.done():
            self._opened.set_exception(problem)

    def _shut(self) -> None:
        """Close the channel, after what was acked has been said."""
        self._send_settlements()
        self._connection.release(self)
        if not self._opened.done():
            self._opened.set_exception(TransportClosed("the consumer was closed while opening"))
        if self._channel is not None and self._channel.is_open:
            self._channel.close()
        else:
            _finish(self._channel_shut)

    def _names(self) -> str:
        return ", ".join(self._wanted.queues)


def _finish(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wait(future: Future[None], seconds: float) -> None:
    try:
        future.result(seconds)
    except TimeoutError:
        _log.warning("the broker did not answer the closing of a channel in %g s", seconds)
