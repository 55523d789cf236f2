"""Publisher over RabbitMQ: a window of unconfirmed messages on a connection of its own.

`publish` (any thread) queues a message and wakes the connection's thread, which sends it and
remembers it under its delivery tag; the broker's ack, nack or return settles it. After a loss
everything unsettled is sent again, in order. When the broker closes the channel because of one
message, that one fails and the others are sent again (see `channel_errors`).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    MessageTooLarge,
)
from flmq.common.logger import get_logger
from flmq.transport.base import Address, Message, Publisher, PublishOutcome
from flmq.transport.checks import check_outgoing
from flmq.transport.closed import publisher_closed
from flmq.transport.rabbitmq.channel_errors import culprit, size_limit
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.control import Control
from flmq.transport.rabbitmq.errors import translate, translated
from flmq.transport.rabbitmq.outgoing import Outgoing, Pending, Unconfirmed
from flmq.transport.rabbitmq.properties import number_of, to_properties
from flmq.transport.rabbitmq.refusals import Refusals
from flmq.transport.rabbitmq.tuning import sendable
from flmq.transport.retry import Backoff, current_pace
from flmq.transport.window import Window

__all__ = ["RabbitMQPublisher"]

_log = get_logger(__name__)


class RabbitMQPublisher(Publisher):
    """Publish with confirms; created by `RabbitMQTransport.publisher`."""

    def __init__(
        self,
        connection: IOConnection,
        control: Control,
        window: Window,
        on_close: Callable[[RabbitMQPublisher], None],
    ) -> None:
        """Publish over ``connection``, which the publisher owns from now on."""
        self._connection = connection
        self._control = control
        self._on_close = on_close
        self._pending = Pending(window)
        self._flush_posted = False
        self._lock = threading.Lock()
        self._closed = False
        self._hurries = False
        # On the connection's thread alone.
        self._amqp: Any = None
        self._channel: Any = None
        self._sent = Unconfirmed()
        self._refusals = Refusals(connection, self._pending, self._flush)
        self._size_limit: int | None = None
        connection.attach(self)

    # Publisher

    def publish(
        self, address: Address, message: Message, *, mandatory: bool = True
    ) -> Future[PublishOutcome]:
        """Send ``message``; the future resolves to its outcome."""
        out = Outgoing(address, message, mandatory)
        out.future.set_running_or_notify_cancel()
        try:
            body = check_outgoing(address, message)
        except BrokerRefusal as refusal:
            out.future.set_exception(refusal)
            return out.future
        out.message = replace(message, body=body, headers=dict(message.headers))
        # A future's callback runs on the connection's thread, which must never wait for itself.
        if not self._pending.accept(out, wait=not self._connection.is_own_thread()):
            out.future.set_exception(publisher_closed())
        elif not self._flush_posted:
            # Without a lock a flush may be posted once too often, but is never missed.
            self._flush_posted = True
            self._connection.post(self._flush)
        return out.future

    def close(self, *, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for outstanding confirms, then close."""
        try:
            left = self._pending.drain(0.0 if self._hurries else timeout)
        except BaseException:  # Ctrl-C: who closes it once more waits no more
            self._hurries = True
            raise
        for out in left:
            self._pending.settle(out, publisher_closed())
        self._connection.close()
        with self._lock:
            first, self._closed = not self._closed, True
        if first:
            self._on_close(self)

    # For the connection's thread (ConnectionUser)

    def connection_up(self, connection: Any) -> None:
        """Open a channel once everything is declared."""
        self._amqp = connection
        self._control.when_ready(lambda: self._connection.post(lambda: self._open(connection)))

    def connection_lost(self, problem: BrokerError) -> None:
        """Forget the connection; everything unsettled is sent over the next one."""
        self.times_lost += 1
        self._amqp = None
        self._refusals.forget()
        self._channel_gone()

    # Channel

    def _open(self, connection: Any) -> None:
        if connection is self._amqp and connection.is_open and self._channel is None:
            connection.channel(on_open_callback=self._opened)

    def _opened(self, channel: Any) -> None:
        channel.add_on_close_callback(self._channel_closed)
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=lambda _: self._ready(channel))

    def _ready(self, channel: Any) -> None:
        self._channel = channel
        self._sent = Unconfirmed()
        self._flush()

    def _channel_closed(self, channel: Any, reason: BaseException) -> None:
        if self._amqp is None or not self._amqp.is_open:
            return  # connection_lost follows
        problem = translate(reason, self._connection.url)
        if not isinstance(problem, BrokerUnavailable):
            self._blame(problem, str(reason))
        _log.info("publisher's channel closed: %s; opening another one", problem)
        self._channel_gone()
        self._open(self._amqp)

    def _blame(self, problem: BrokerError, reason: str) -> None:
        """Fail the message at fault; if unknown, retry each message alone."""
        self._size_limit = size_limit(reason) or self._size_limit
        sent = list(self._sent.messages)
        index = culprit(reason, [(out.address, out.message) for out in sent])
        if index is None and len(sent) == 1:
            index = 0
        if index is None:
            self._pending.suspect(sent)
            return
        out = sent[index]
        if isinstance(problem, BrokerAccessRefused):
            self._refusals.hold(out, problem, alone="topic" in reason)
            return
        limit = size_limit(reason)
        size = len(out.message.body)
        self._pending.settle(out, problem if limit is None else MessageTooLarge(size, limit))

    def _channel_gone(self) -> None:
        """Queue everything unsettled to be sent again, in order."""
        self._channel = None
        self._sent = Unconfirmed()
        self._pending.send_all_again(but=self._refusals.messages)

    # Sending

    def _flush(self) -> None:
        self._flush_posted = False  # reset first: a message that comes now posts another flush
        while self._channel is not None:
            out = self._pending.next(self._sent.messages)
            if out is None:
                return
            self._send(out)

    def _send(self, out: Outgoing) -> None:
        size = len(out.message.body)
        if self._size_limit is not None and size > self._size_limit:
            self._pending.settle(out, MessageTooLarge(size, self._size_limit))
            return
        try:
            with translated(self._connection.url):
                self._channel.basic_publish(
                    out.address.exchange,
                    out.address.routing_key,
                    sendable(out.message.body),
                    to_properties(out.message, out.number),
                    mandatory=out.mandatory,
                )
        except BrokerUnavailable:
            self._channel = None  # just closed; its callback follows, and this is sent again
        except BrokerError as error:
            self._pending.settle(out, error)
        else:
            self._sent.add(out)

    # The broker's answers

    def _on_return(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        """Note that a message was unroutable; its ack comes next."""
        if not self._sent.returned(number_of(properties)):
            _log.error("a message was returned that is not under way: %s", method)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        confirmed = method.NAME == "Basic.Ack"
        for out in self._sent.take(method.delivery_tag, multiple=method.multiple):
            if confirmed:
                fate = PublishOutcome.UNROUTABLE if out.returned else PublishOutcome.CONFIRMED
                self._pending.settle(out, fate)
                self._refusals.went_well(out)
            else:
                self._send_later(out)
        self._flush()

    def _send_later(self, out: Outgoing) -> None:
        """Retry a nacked message after a while, without holding up others."""
        out.returned = False
        backoff = out.nacks = out.nacks or Backoff()
        seconds = backoff.next(current_pace().refused)
        _log.info(
            "RabbitMQ does not take a message for %s now; trying again in %.1f s",
            out.address,
            seconds,
        )

        def again() -> None:
            # After a connection loss meanwhile, it was queued or sent already.
            if out.nacks is backoff:
                self._pending.send_again([out])
                self._flush()

        self._connection.call_later(seconds, again)
