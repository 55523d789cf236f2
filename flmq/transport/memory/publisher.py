"""Publisher of the memory broker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field

from flmq.common.errors import BrokerRefusal, FlmqError
from flmq.transport.base import Address, Message, Publisher, PublishOutcome
from flmq.transport.checks import check_outgoing, wrong_user
from flmq.transport.closed import publisher_closed
from flmq.transport.memory.broker import MemoryBroker
from flmq.transport.window import MAX_BYTES, MAX_MESSAGES, Window

__all__ = ["MemoryPublisher"]


@dataclass(slots=True, eq=False)
class _Outgoing:
    """A message whose outcome is not known yet."""

    address: Address
    message: Message
    mandatory: bool
    future: Future[PublishOutcome] = field(default_factory=Future)
    under_way: bool = False
    """Delayed, or accepted by the broker without a confirm."""
    epoch: int = 0
    """The connection it was last sent on."""


class MemoryPublisher(Publisher):
    """Publish to a `MemoryBroker`; created by `MemoryTransport.publisher`."""

    def __init__(
        self, broker: MemoryBroker, user: str, on_close: Callable[[MemoryPublisher], None]
    ) -> None:
        """Publish as the user ``user``."""
        self._broker = broker
        self._user = user
        self._on_close = on_close
        self._changed = threading.Condition(broker.scheduler.lock)
        self._pending: dict[_Outgoing, None] = {}
        self._window = Window(MAX_MESSAGES, MAX_BYTES)
        self._epoch = 0
        self._latest = 0.0
        self._closing = False
        self._closed = False

    # Publisher

    def publish(
        self, address: Address, message: Message, *, mandatory: bool = True
    ) -> Future[PublishOutcome]:
        """Send ``message``; the future resolves to its outcome."""
        out = _Outgoing(address, message, mandatory)
        out.future.set_running_or_notify_cancel()
        try:
            out.message = self._own(address, message)
        except BrokerRefusal as refusal:
            out.future.set_exception(refusal)
            return out.future
        with self._broker.scheduler.locked():
            while self._window.is_full() and not self._closing:
                self._changed.wait()
            self._pending[out] = None
            self._window.add(len(out.message.body))
            if self._closing:
                self._finish(out, publisher_closed())
            else:
                self._send(out)
        return out.future

    def close(self, *, timeout: float = 10.0) -> None:
        """Wait up to ``timeout`` seconds for outstanding confirms, then close."""
        with self._broker.scheduler.locked():
            self._closing = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._pending, timeout)
            for out in list(self._pending):
                self._finish(out, publisher_closed())
            if not self._closed:
                self._closed = True
                self._on_close(self)

    # What its transport does, under the broker's lock

    def lost(self) -> None:
        """Lose the connection: nothing pending will be confirmed on it."""
        self._epoch += 1
        self.times_lost += 1
        for out in self._pending:
            out.under_way = False

    def send_pending(self) -> None:
        """Send the waiting messages, in order."""
        for out in list(self._pending):
            if not out.under_way:
                self._send(out)

    # Inside

    def _own(self, address: Address, message: Message) -> Message:
        body = bytes(check_outgoing(address, message))
        if message.user_id is not None and message.user_id != self._user:
            raise wrong_user(message.user_id, self._user)
        expiration = message.expiration
        # All properties that a message is sent with: `replace` takes twice the time.
        return Message(
            body,
            type=message.type,
            message_id=message.message_id,
            correlation_id=message.correlation_id,
            user_id=message.user_id,
            headers=dict(message.headers),
            expiration=None if expiration is None else round(expiration * 1000) / 1000,
            persistent=message.persistent,
        )

    def _send(self, out: _Outgoing) -> None:
        if not self._broker.is_up or self._broker.is_blocked:
            return
        out.under_way = True
        out.epoch = self._epoch
        now = self._broker.scheduler.now()
        self._latest = max(now + self._broker.faults.delay, self._latest)
        if self._latest > now:
            self._broker.scheduler.at(self._latest, lambda: self._arrive(out, out.epoch))
        else:
            self._arrive(out, out.epoch)

    def _arrive(self, out: _Outgoing, epoch: int) -> None:
        """Deliver the message to the broker, unless the connection was lost meanwhile."""
        if epoch != self._epoch or out not in self._pending:
            return
        try:
            routed = self._broker.publish(out.address, out.message)
        except FlmqError as error:
            self._finish(out, error)
            return
        if routed is None:  # a nack: send again when there is room
            self._broker.vhost.when_room(
                out.address, len(out.message.body), lambda: self._arrive(out, epoch)
            )
        elif not self._broker.faults.losing_confirms:
            routed = routed or not out.mandatory
            self._finish(out, PublishOutcome.CONFIRMED if routed else PublishOutcome.UNROUTABLE)

    def _finish(self, out: _Outgoing, fate: PublishOutcome | FlmqError) -> None:
        del self._pending[out]
        self._window.remove(len(out.message.body))
        self._changed.notify_all()
        future = out.future
        if isinstance(fate, PublishOutcome):
            self._broker.scheduler.later(lambda: future.set_result(fate))
        else:
            self._broker.scheduler.later(lambda: future.set_exception(fate))
