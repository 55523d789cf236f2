"""The memory broker: its connected transports, its virtual host, and faults on demand."""

from __future__ import annotations

import random
from typing import Protocol

from flmq.common.errors import MessageTooLarge
from flmq.transport.arriving import message_of, unreadable_message
from flmq.transport.base import Address, Message
from flmq.transport.memory.clock import Clock
from flmq.transport.memory.faults import Faults
from flmq.transport.memory.scheduler import Scheduler
from flmq.transport.memory.virtualhost import VirtualHost

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "MemoryBroker", "Peer"]

DEFAULT_MAX_MESSAGE_SIZE = 16 * 1024 * 1024
"""Bytes; RabbitMQ 4's own default."""


class Peer(Protocol):
    """A transport as seen by the broker; all calls are made under the broker's lock."""

    def lost(self, reason: str) -> None:
        """Drop every connection: un-acked messages go back, confirms will not come."""

    def returned(self) -> None:
        """Reconnect."""

    def blocked(self) -> None:
        """Note that publishers are blocked."""

    def unblocked(self) -> None:
        """Note that publishers may go on."""

    def cancelled(self, queue: str) -> None:
        """Note that a queue that may be consumed here is gone."""


class MemoryBroker:
    """The parts of RabbitMQ that flmq uses, in memory and somewhat stricter.

    State is kept in the instance; `MemoryTransport` connects to it; thread-safe. The fault methods
    (`drop_connections`, `down`, `block`, `lose_acks`, ...) are for tests.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        max_message_size: int = DEFAULT_MAX_MESSAGE_SIZE,
    ) -> None:
        """Start empty. ``clock`` governs expiry and delays; ``max_message_size`` is in bytes."""
        self.max_message_size = max_message_size
        self.faults = Faults()
        self.is_up = True
        self.is_blocked = False
        self.scheduler = Scheduler(clock or Clock())
        self.vhost = VirtualHost(self.scheduler, self.faults, self._cancel)
        self._peers: list[Peer] = []

    # Faults on demand

    def drop_connections(self, reason: str = "connection reset by peer") -> None:
        """Break every connection once; all reconnect at once, exclusive queues are redeclared."""
        with self.scheduler.locked():
            self._lose_all(reason)
            self._return_all()

    def down(self, reason: str = "connection refused") -> None:
        """Break every connection and refuse new ones until `up`. Queued messages stay."""
        with self.scheduler.locked():
            self.is_up = False
            self._lose_all(reason)

    def up(self) -> None:
        """Accept connections again."""
        with self.scheduler.locked():
            self.is_up = True
            self._return_all()

    def restart(self) -> None:
        """Stop and start: lose what is not durable or persistent, redeliver the rest."""
        with self.scheduler.locked():
            self._lose_all("broker restarted")
            self.vhost.restart()
            self._return_all()

    def wipe(self) -> None:
        """Lose all data, like a node with a replaced disk; reconnecting clients redeclare it.

        Transports reconnect in reverse order of connecting, so that messages of the first ones back
        may find others' queues missing.
        """
        with self.scheduler.locked():
            self._lose_all("broker lost its data")
            self.vhost.wipe()
            self._peers.reverse()
            if self.is_up:
                self._return_all()

    def block(self) -> None:
        """Block publishers, as a memory or disk alarm does; consumers go on."""
        with self.scheduler.locked():
            self.is_blocked = True
            for peer in list(self._peers):
                peer.blocked()

    def unblock(self) -> None:
        """Unblock publishers."""
        with self.scheduler.locked():
            self.is_blocked = False
            for peer in list(self._peers):
                peer.unblocked()

    def lose_acks(self) -> None:
        """Ignore every ack until the next connection loss: those messages are redelivered."""
        with self.scheduler.locked():
            self.faults.losing_acks = True

    def lose_confirms(self) -> None:
        """Send no confirms until the next connection loss: publishers send again."""
        with self.scheduler.locked():
            self.faults.losing_confirms = True

    def duplicate(self, count: int) -> None:
        """Put each of the next ``count`` published messages twice into its queues."""
        with self.scheduler.locked():
            self.faults.duplicates = count

    def delay(self, seconds: float) -> None:
        """Delay published messages by ``seconds``, keeping their order; 0 ends it."""
        with self.scheduler.locked():
            self.faults.delay = seconds

    def reorder(self, seed: int | None) -> None:
        """Insert messages at random positions of their queues; None ends it."""
        with self.scheduler.locked():
            self.faults.order = None if seed is None else random.Random(seed)

    def inject(
        self, address: Address, body: bytes, *, unreadable: str = "", **properties: object
    ) -> None:
        """Publish what none of our publishers would: any AMQP ``properties``, of any type.

        With ``unreadable``, the reader finds that it cannot read the properties, for that reason.
        """
        message = (
            unreadable_message(body, unreadable) if unreadable else message_of(body, **properties)
        )
        with self.scheduler.locked():
            self.publish(address, message)

    # What transports ask for, under the lock

    def connect(self, peer: Peer) -> None:
        """Register a transport."""
        self._peers.append(peer)

    def disconnect(self, peer: Peer) -> None:
        """Unregister a transport, and delete its exclusive queues."""
        if peer in self._peers:
            self._peers.remove(peer)
        self.vhost.delete_exclusive(peer)

    def publish(self, address: Address, message: Message) -> bool | None:
        """Route a message; see `VirtualHost.publish`.

        Raises:
            MessageTooLarge: it is larger than ``max_message_size``.
        """
        if len(message.body) > self.max_message_size:
            raise MessageTooLarge(len(message.body), self.max_message_size)
        return self.vhost.publish(address, message)

    # Inside

    def _lose_all(self, reason: str) -> None:
        for peer in list(self._peers):
            peer.lost(reason)
        for peer in list(self._peers):
            self.vhost.delete_exclusive(peer)
        self.faults.losing_acks = self.faults.losing_confirms = False

    def _return_all(self) -> None:
        for peer in list(self._peers):
            peer.returned()

    def _cancel(self, queue: str) -> None:
        for peer in list(self._peers):
            peer.cancelled(queue)
