"""The memory broker itself: who is connected to its virtual host, and faults on demand."""

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
    """A transport, as the broker speaks to it; every call comes under the broker's lock."""

    def lost(self, reason: str) -> None:
        """Give up every connection: un-acked messages go back, confirms will not come."""

    def returned(self) -> None:
        """Connect again."""

    def blocked(self) -> None:
        """Publishers are held back."""

    def unblocked(self) -> None:
        """Publishers may go on."""

    def cancelled(self, queue: str) -> None:
        """A queue that may be consumed here is gone."""


class MemoryBroker:
    """RabbitMQ's behaviour in memory: the parts flmq uses, somewhat stricter.

    Its state is in the instance; `MemoryTransport` connects to it; threads may share it. Fault
    methods (`drop_connections`, `down`, `block`, `lose_acks`, ...) are for tests.
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
        """Break every connection once; all come back at once, exclusive queues are made anew."""
        with self.scheduler.locked():
            self._lose_all(reason)
            self._return_all()

    def down(self, reason: str = "connection refused") -> None:
        """Break every connection and let nobody connect until `up`. What is queued stays."""
        with self.scheduler.locked():
            self.is_up = False
            self._lose_all(reason)

    def up(self) -> None:
        """Let everybody connect again."""
        with self.scheduler.locked():
            self.is_up = True
            self._return_all()

    def restart(self) -> None:
        """Stop and start: what is not durable and persistent is gone, the rest redelivered."""
        with self.scheduler.locked():
            self._lose_all("broker restarted")
            self.vhost.restart()
            self._return_all()

    def wipe(self) -> None:
        """Lose all data, as a node whose disk was replaced; each who connects declares it anew.

        Who connected last is back first, so that what it sends may find no queue of the others.
        """
        with self.scheduler.locked():
            self._lose_all("broker lost its data")
            self.vhost.wipe()
            self._peers.reverse()
            if self.is_up:
                self._return_all()

    def block(self) -> None:
        """Hold publishers back, as a memory or disk alarm does; consumers go on."""
        with self.scheduler.locked():
            self.is_blocked = True
            for peer in list(self._peers):
                peer.blocked()

    def unblock(self) -> None:
        """Let publishers go on."""
        with self.scheduler.locked():
            self.is_blocked = False
            for peer in list(self._peers):
                peer.unblocked()

    def lose_acks(self) -> None:
        """Forget every ack from now until the next connection loss: those messages come again."""
        with self.scheduler.locked():
            self.faults.losing_acks = True

    def lose_confirms(self) -> None:
        """Send no confirm from now until the next connection loss: publishers send again."""
        with self.scheduler.locked():
            self.faults.losing_confirms = True

    def duplicate(self, count: int) -> None:
        """Put each of the next ``count`` published messages twice into its queues."""
        with self.scheduler.locked():
            self.faults.duplicates = count

    def delay(self, seconds: float) -> None:
        """Let published messages arrive ``seconds`` late, in their order; 0 ends it."""
        with self.scheduler.locked():
            self.faults.delay = seconds

    def reorder(self, seed: int | None) -> None:
        """Put messages at random places of their queues; None ends it."""
        with self.scheduler.locked():
            self.faults.order = None if seed is None else random.Random(seed)

    def inject(
        self, address: Address, body: bytes, *, unreadable: str = "", **properties: object
    ) -> None:
        """Publish what no publisher of ours would: any ``properties`` of AMQP, of any type.

        With ``unreadable`` their reader is to find that it cannot read them, for that reason.
        """
        message = (
            unreadable_message(body, unreadable) if unreadable else message_of(body, **properties)
        )
        with self.scheduler.locked():
            self.publish(address, message)

    # What transports ask for, under the lock

    def connect(self, peer: Peer) -> None:
        """Know a transport from now on."""
        self._peers.append(peer)

    def disconnect(self, peer: Peer) -> None:
        """Forget a transport, and delete its exclusive queues."""
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
