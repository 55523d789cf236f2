"""Consumer over RabbitMQ, with a channel that is reopened whenever it is lost."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
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
from flmq.common.logger import get_logger
from flmq.transport.arriving import text_of
from flmq.transport.base import Consumer, Delivery
from flmq.transport.closed import say_dropped
from flmq.transport.rabbitmq.channel_ops import StepsRun
from flmq.transport.rabbitmq.connection import CLOSE_SECONDS, IOConnection
from flmq.transport.rabbitmq.control import Control
from flmq.transport.rabbitmq.errors import translate
from flmq.transport.rabbitmq.properties import from_amqp
from flmq.transport.rabbitmq.reading import bound
from flmq.transport.rabbitmq.resubscription import Resubscription
from flmq.transport.rabbitmq.subscription import Subscription
from flmq.transport.rabbitmq.unacked import Tag, UnackedDeliveries

__all__ = ["RabbitMQConsumer"]

_log = get_logger(__name__)


class RabbitMQConsumer(Consumer):
    """Receive messages from queues; created by `RabbitMQTransport.consumer`."""

    def __init__(
        self,
        connection: IOConnection,
        control: Control,
        subscription: Subscription,
        *,
        owns_connection: bool,
        on_close: Callable[[RabbitMQConsumer], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Consume over ``connection``; see `open`. ``clock`` gives seconds."""
        self._connection = connection
        self._control = control
        self._wanted = subscription
        self._owns_connection = owns_connection
        self._on_close = on_close
        self._unacked = UnackedDeliveries(subscription.at_most)
        # On the connection's thread alone.
        self._opened: Future[None] = Future()
        self._amqp: Any = None
        self._channel: Any = None
        self._again = Resubscription(subscription, clock)
        self._channel_shut: Future[None] = Future()

    def open(self) -> None:
        """Start, and wait until every queue is being consumed; raise what prevents it."""
        self._connection.attach(self)
        self._opened.result()

    # Consumer

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """Return the next delivery, or None after ``timeout`` seconds."""
        return self._unacked.receive(timeout)

    def ack(self, delivery: Delivery) -> None:
        """Tell the broker to forget the message."""
        self._settle(delivery, "ack")

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Return the message to its queue, or drop it to the dead-letter exchange."""
        self._settle(delivery, "requeue" if requeue else "reject")

    @property
    def arrived(self) -> int:
        """Bytes that have come over the connection."""
        return self._connection.arrived

    def close(self) -> None:
        """Stop consuming; un-acked messages go back to their queues."""
        if not self._unacked.close():
            return
        self._connection.post(self._shut)
        if self._owns_connection:
            self._connection.close()
        else:
            self._connection.detach(self)
            if not self._connection.is_own_thread():
                _wait(self._channel_shut, CLOSE_SECONDS)
        self._on_close(self)

    # For the connection's thread (ConnectionUser)

    def connection_up(self, connection: Any) -> None:
        """Open a channel once everything is declared."""
        self._amqp = connection
        self._control.when_ready(lambda: self._connection.post(lambda: self._open(connection)))

    def connection_lost(self, problem: BrokerError) -> None:
        """Forget all deliveries: the broker delivers them again."""
        self._amqp = None
        self._channel_gone()
        if self._unacked.closed:
            _finish(self._channel_shut)
        elif isinstance(problem, BrokerRefusal):
            self._fail(problem)  # the broker closed the connection because of our request

    # Settling

    def _settle(self, delivery: Delivery, verb: str) -> None:
        if count := self._unacked.settle(delivery, verb):
            if count == 1:
                self._connection.post(self._send_settlements)
            return
        say_dropped(verb, delivery)

    def _send_settlements(self) -> None:
        channel, generation = self._channel, self._unacked.generation
        settlements, below = self._unacked.take_settlements()
        is_open = channel is not None and channel.is_open
        if is_open and all(verb == "ack" for _, verb in settlements):
            settlements = _ack_together(channel, generation, settlements, below)
        for tag, verb in settlements:
            if tag.generation != generation or not is_open:
                _log.info("%s dropped: the connection was lost, it will be delivered again", verb)
            elif verb == "ack":
                channel.basic_ack(tag.number)
            else:
                channel.basic_reject(tag.number, requeue=verb == "requeue")

    # Channel

    def _open(self, connection: Any) -> None:
        if self._unacked.closed or self._unacked.failed:
            return
        if connection is self._amqp and connection.is_open and self._channel is None:
            connection.channel(on_open_callback=self._channel_opened)

    def _channel_opened(self, channel: Any) -> None:
        def consuming(_: None, error: BrokerError | None) -> None:
            if error is None:
                self._connection.states.release(self)
                self._again.succeeded()
                _finish(self._opened)

        self._channel = channel
        bound(channel)
        channel.add_on_cancel_callback(partial(_cancelled, self._wanted, channel))
        on_message = partial(self._delivered, self._unacked.begin())
        steps = self._wanted.consume(channel, on_message)
        StepsRun(channel, steps, consuming, self._connection.url)
        channel.add_on_close_callback(self._channel_closed)

    def _delivered(
        self, generation: int, queue: str, _: Any, method: Any, properties: Any, body: bytes
    ) -> None:
        delivery = Delivery(
            message=from_amqp(properties, body),
            queue=queue,
            redelivered=method.redelivered,
            tag=Tag(self._unacked, generation, method.delivery_tag),
            exchange=text_of(method.exchange),
            routing_key=text_of(method.routing_key),
        )
        if self._unacked.add(delivery, generation):
            self._wanted.read_up_to(delivery, 1)

    def _channel_closed(self, channel: Any, reason: BaseException) -> None:
        if self._unacked.closed:
            _finish(self._channel_shut)
        if self._amqp is None or not self._amqp.is_open:
            return  # connection_lost follows
        self._channel_gone()
        if not self._unacked.closed:
            self._begin_again(translate(reason, self._connection.url))

    def _channel_gone(self) -> None:
        self._channel = None
        self._again.lost()
        for delivery in reversed(self._unacked.lose()):
            self._wanted.read_up_to(delivery, 0)  # not received yet

    def _begin_again(self, problem: BrokerError) -> None:
        """Consume again, unless ``problem`` is permanent; declare first what may be missing."""
        if self._again.is_final(problem):
            self._fail(problem)
            return
        connection = self._amqp

        def restored(error: BrokerError | None) -> None:
            self._again.not_restored = error
            self._connection.post(lambda: self._open(connection))

        def restore() -> None:
            # On a newer connection, consuming has started again already.
            if connection is not self._amqp or self._unacked.closed:
                return
            if isinstance(problem, ResourceLocked):
                self._open(connection)  # all is there: thousands would be declared at every try
            else:
                self._control.restore(restored)

        if self._again.waits_for(problem):
            gone = f"a queue is gone and is waited for: {problem}"
            self._connection.states.hold(self, gone)
        elif isinstance(problem, BrokerAccessRefused | BrokerUnavailable):
            self._connection.states.hold(self, str(problem))
        else:
            # While open() waits, its caller is told of the problem, and reports it.
            waits = isinstance(problem, ResourceLocked) and not self._opened.done()
            level = logging.DEBUG if waits else logging.INFO
            _log.log(level, "consumer of %s begins again: %s", self._wanted, problem)
        self._connection.call_later(self._again.wait(problem), restore)

    def _fail(self, problem: BrokerError) -> None:
        self._unacked.fail(problem)
        if not self._opened.done():
            self._opened.set_exception(problem)

    def _shut(self) -> None:
        """Close the channel after sending the pending acks."""
        self._send_settlements()
        self._connection.states.release(self)
        if not self._opened.done():
            self._opened.set_exception(TransportClosed("the consumer was closed while opening"))
        if self._channel is not None and self._channel.is_open:
            self._channel.close()
        else:
            _finish(self._channel_shut)


def _ack_together(
    channel: Any, generation: int, settlements: deque[tuple[Tag, str]], below: int
) -> deque[tuple[Tag, str]]:
    """Ack all at once below which nothing is un-acked; return the others.

    To a quorum queue every ack is an entry in its log.
    """
    mine = [tag.number for tag, _ in settlements if tag.generation == generation]
    together = [number for number in mine if number < below]
    if len(together) < 2:
        return settlements
    channel.basic_ack(max(together), multiple=True)
    return deque(
        (tag, verb)
        for tag, verb in settlements
        if tag.generation != generation or tag.number >= below
    )


def _cancelled(wanted: Subscription, channel: Any, _: Any) -> None:
    """Start over when the broker ends a consumer: its queue was deleted, or its node left."""
    _log.warning("RabbitMQ cancelled the consumer of %s; beginning again", wanted)
    if channel.is_open:
        channel.close()


def _finish(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _wait(future: Future[None], seconds: float) -> None:
    try:
        future.result(seconds)
    except TimeoutError:
        _log.warning("the broker did not answer the closing of a channel in %g s", seconds)
