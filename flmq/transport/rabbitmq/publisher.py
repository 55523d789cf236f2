"""Publisher over RabbitMQ: a window of unconfirmed messages on a connection of its own.

One message's way: `publish` (any thread) queues it and wakes the connection's thread; that sends
it and remembers it under its delivery tag; the broker's ack, nack or return settles it. After a
loss everything unsettled is sent again, in its order. When the broker closes the channel for one
message's sake, that one fails and the others are sent again (see `channel_errors`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Any

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerRefusal,
    BrokerUnavailable,
    MessageTooLarge,
    TransportClosed,
)
from flmq.transport.base import Address, Message, Publisher, PublishOutcome
from flmq.transport.checks import check_outgoing
from flmq.transport.rabbitmq.channel_errors import culprit, size_limit
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.control import Control
from flmq.transport.rabbitmq.errors import translate, translated
from flmq.transport.rabbitmq.properties import number_of, to_properties
from flmq.transport.rabbitmq.tuning import sendable
from flmq.transport.retry import Backoff, current_pace
from flmq.transport.window import Window

__all__ = ["RabbitMQPublisher"]

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Outgoing:
    """A message whose fate is not known yet."""

    address: Address
    message: Message
    mandatory: bool
    future: Future[PublishOutcome] = field(default_factory=Future)
    number: int = 0
    returned: bool = False
    nacks: Backoff | None = None
    """While it waits to be sent again after a nack."""


class RabbitMQPublisher(Publisher):
    """Publishes with confirms; made by `RabbitMQTransport.publisher`."""

    def __init__(
        self,
        connection: IOConnection,
        control: Control,
        window: Window,
        on_close: Callable[[RabbitMQPublisher], None],
    ) -> None:
        """Publish over ``connection``, which belongs to the publisher from now on."""
        self._connection = connection
        self._control = control
        self._window = window
        self._on_close = on_close
        self._changed = threading.Condition()
        # Under the lock: everything unsettled, in order of publishing, and what is to be sent.
        self._pending: dict[_Outgoing, None] = {}
        self._unsent: deque[_Outgoing] = deque()
        self._count = 0
        self._flush_posted = False
        self._closing = False
        self._closed = False
        # On the connection's thread alone.
        self._amqp: Any = None
        self._channel: Any = None
        self._sent: dict[int, _Outgoing] = {}
        self._next_tag = 1
        self._suspects: set[_Outgoing] = set()
        self._refused: dict[_Outgoing, None] = {}
        """Messages that we have no permission to write; one is tried again after a while."""
        self._probe: _Outgoing | None = None
        self._probe_waits = False
        self._size_limit: int | None = None
        connection.attach(self)

    # Publisher

    def publish(
        self, address: Address, message: Message, *, mandatory: bool = True
    ) -> Future[PublishOutcome]:
        """Send ``message``; the future resolves when its fate is known."""
        out = _Outgoing(address, message, mandatory)
        out.future.set_running_or_notify_cancel()
        try:
            body = check_outgoing(address, message)
        except BrokerRefusal as refusal:
            out.future.set_exception(refusal)
            return out.future
        out.message = replace(message, body=body, headers=dict(message.headers))
        with self._changed:
            self._wait_for_room()
            if not self._closing:
                self._accept(out)
                return out.future
        out.future.set_exception(_closed())
        return out.future

    def close(self, *, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for outstanding confirms, then close."""
        deadline = time.monotonic() + timeout
        with self._changed:
            self._closing = True
            self._changed.notify_all()
            while self._pending and (remaining := deadline - time.monotonic()) > 0:
                self._changed.wait(remaining)
            left = list(self._pending)
            first = not self._closed
            self._closed = True
        for out in left:
            self._settle(out, _closed())
        self._connection.close()
        if first:
            self._on_close(self)

    # For the connection's thread (ConnectionUser)

    def connection_up(self, connection: Any) -> None:
        """Open a channel once everything is declared."""
        self._amqp = connection
        self._control.when_ready(lambda: self._connection.post(lambda: self._open(connection)))

    def connection_lost(self, problem: BrokerError) -> None:
        """Forget the connection; what is unsettled will be sent over the next one."""
        self._amqp = None
        self._refused.clear()
        self._channel_gone()

    # Any thread

    def _wait_for_room(self) -> None:
        # A callback of a future runs on the connection's thread, which must never wait for itself.
        if not self._connection.is_own_thread():
            while self._window.is_full() and not self._closing:
                self._changed.wait()

    def _accept(self, out: _Outgoing) -> None:
        self._count += 1
        out.number = self._count
        self._pending[out] = None
        self._unsent.append(out)
        self._window.add(len(out.message.body))
        self._post_flush()

    def _post_flush(self) -> None:
        if not self._flush_posted:
            self._flush_posted = True
            self._connection.post(self._flush)

    def _settle(self, out: _Outgoing, fate: PublishOutcome | BrokerError) -> None:
        with self._changed:
            if out not in self._pending:
                return
            del self._pending[out]
            self._window.remove(len(out.message.body))
            self._changed.notify_all()
        self._suspects.discard(out)
        if isinstance(fate, PublishOutcome):
            out.future.set_result(fate)
        else:
            out.future.set_exception(fate)

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
        self._next_tag = 1
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
        """Fail the message at fault; if it cannot be told which, try each one alone."""
        self._size_limit = size_limit(reason) or self._size_limit
        sent = list(self._sent.values())
        index = culprit(reason, [(out.address, out.message) for out in sent])
        if index is None and len(sent) == 1:
            index = 0
        if index is None:
            self._suspects.update(sent)
            return
        out = sent[index]
        if isinstance(problem, BrokerAccessRefused):
            self._hold(out, problem, alone="topic" in reason)
            return
        limit = size_limit(reason)
        size = len(out.message.body)
        self._settle(out, problem if limit is None else MessageTooLarge(size, limit))

    def _hold(self, refused: _Outgoing, problem: BrokerError, *, alone: bool) -> None:
        """Keep a message that we may not write for later, and, if not ``alone``, its exchange's."""
        exchange = refused.address.exchange
        self._refused[refused] = None
        if not alone:
            alike = [out for out in self._pending_copy() if out.address.exchange == exchange]
            self._refused.update(dict.fromkeys(alike))
        self._connection.hold(self, str(problem))
        if not self._probe_waits:
            self._probe_waits = True
            self._connection.call_later(current_pace().refused, self._try_refused)

    def _try_refused(self) -> None:
        """Send the first of those that were refused; if that goes well, the others follow."""
        self._probe_waits = False
        self._probe = next((out for out in self._refused if out in self._pending), None)
        if self._probe is not None:
            self._release([self._probe])

    def _release(self, released: list[_Outgoing]) -> None:
        for out in released:
            self._refused.pop(out, None)
        with self._changed:
            self._unsent.extend(released)
        self._flush()

    def _went_well(self, out: _Outgoing) -> None:
        """Send what waits for a permission, if it was this message that tried."""
        if out is self._probe:
            self._probe = None
            self._connection.release(self)
            self._release(list(self._refused))

    def _channel_gone(self) -> None:
        """Queue everything unsettled to be sent again, in its order."""
        self._channel = None
        self._sent.clear()
        with self._changed:
            self._unsent = deque(out for out in self._pending if out not in self._refused)
        for out in self._pending_copy():
            out.returned = False
            out.nacks = None

    def _pending_copy(self) -> list[_Outgoing]:
        with self._changed:
            return list(self._pending)

    # Sending

    def _flush(self) -> None:
        with self._changed:
            self._flush_posted = False
        while self._channel is not None and (out := self._next_unsent()) is not None:
            self._send(out)

    def _next_unsent(self) -> _Outgoing | None:
        with self._changed:
            while self._unsent:
                # A suspect travels alone, so that a closed channel is its own fault for certain.
                if self._suspects and self._sent and self._travels_alone(self._unsent[0]):
                    return None
                out = self._unsent.popleft()
                if out in self._pending:
                    return out
        return None

    def _travels_alone(self, out: _Outgoing) -> bool:
        return bool(self._suspects & {out, *self._sent.values()})

    def _send(self, out: _Outgoing) -> None:
        size = len(out.message.body)
        if self._size_limit is not None and size > self._size_limit:
            self._settle(out, MessageTooLarge(size, self._size_limit))
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
            self._channel = None  # closed this moment; it will be told, and this one sent again
        except BrokerError as error:
            self._settle(out, error)
        else:
            self._sent[self._next_tag] = out
            self._next_tag += 1

    # The broker's answers

    def _on_return(self, _: Any, method: Any, properties: Any, body: bytes) -> None:
        """Note that a message was unroutable; its ack comes next."""
        number = number_of(properties)
        for out in self._sent.values():
            if out.number == number:
                out.returned = True
                return
        _log.error("a message was returned that is not under way: %s", method)

    def _on_confirm(self, frame: Any) -> None:
        method = frame.method
        confirmed = method.NAME == "Basic.Ack"
        for tag in self._tags(method.delivery_tag, multiple=method.multiple):
            out = self._sent.pop(tag)
            if confirmed:
                self._settle(
                    out, PublishOutcome.UNROUTABLE if out.returned else PublishOutcome.CONFIRMED
                )
                self._went_well(out)
            else:
                self._send_later(out)
        self._flush()

    def _tags(self, tag: int, *, multiple: bool) -> list[int]:
        if not multiple:
            return [tag] if tag in self._sent else []
        tags = []
        for sent in self._sent:  # in order
            if tag and sent > tag:
                break
            tags.append(sent)
        return tags

    def _send_later(self, out: _Outgoing) -> None:
        """Try a nacked message again after a while, without holding up others."""
        out.returned = False
        backoff = out.nacks = out.nacks or Backoff()
        seconds = backoff.next(current_pace().refused)
        _log.info(
            "RabbitMQ does not take a message for %s now; trying again in %.1f s",
            out.address,
            seconds,
        )

        def again() -> None:
            # After a loss in between it was queued, or sent, already.
            if out.nacks is backoff:
                with self._changed:
                    self._unsent.append(out)
                self._flush()

        self._connection.call_later(seconds, again)


def _closed() -> TransportClosed:
    return TransportClosed("the publisher was closed before the broker confirmed the message")
