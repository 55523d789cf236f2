"""The memory broker itself: one virtual host in one process, and faults on demand.

Everything happens under one lock; what others must be told (futures, listeners) waits until it
is released, so that no code of theirs runs inside. Nothing polls: who waits is notified.
"""

from __future__ import annotations

import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

from flmq.common.errors import BrokerRefusal, MessageTooLarge, ResourceLocked
from flmq.transport.arriving import message_of, unreadable_message
from flmq.transport.base import Address, Message, QueueInfo, StreamOffset
from flmq.transport.checks import check_exclusive, check_offset
from flmq.transport.memory.clock import Clock, Timers
from flmq.transport.memory.queue import MemoryQueue, Stored, check_queue
from flmq.transport.memory.routing import Router
from flmq.transport.memory.stream import MemoryStream
from flmq.transport.topology import AMOUNTS, Queue, QueueType, Topology

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "MemoryBroker"]

_log = logging.getLogger(__name__)

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


@dataclass(slots=True)
class Faults:
    """What goes wrong at present; every test may set it at any time."""

    losing_acks: bool = False
    losing_confirms: bool = False
    duplicates: int = 0
    delay: float = 0.0
    order: random.Random | None = None


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
        self.lock = threading.Lock()
        self._clock = clock or Clock()
        self._timers = Timers(self._clock, self._run_locked)
        self._router = Router()
        self._queues: dict[str, MemoryQueue] = {}
        self._peers: list[Peer] = []
        self._effects: deque[Callable[[], None]] = deque()
        self._soon: deque[Callable[[], None]] = deque()

    # Faults on demand

    def drop_connections(self, reason: str = "connection reset by peer") -> None:
        """Break every connection once; all come back at once, exclusive queues are made anew."""
        with self.locked():
            self._lose_all(reason)
            self._return_all()

    def down(self, reason: str = "connection refused") -> None:
        """Break every connection and let nobody connect until `up`. What is queued stays."""
        with self.locked():
            self.is_up = False
            self._lose_all(reason)

    def up(self) -> None:
        """Let everybody connect again."""
        with self.locked():
            self.is_up = True
            self._return_all()

    def restart(self) -> None:
        """Stop and start: what is not durable and persistent is gone, the rest redelivered."""
        with self.locked():
            self._lose_all("broker restarted")
            for queue in list(self._queues.values()):
                self._recover(queue)
            self._return_all()

    def wipe(self) -> None:
        """Lose all data, as a node whose disk was replaced; each who connects declares it anew.

        Who connected last is back first, so that what it sends may find no queue of the others.
        """
        with self.locked():
            self._lose_all("broker lost its data")
            for queue in list(self._queues.values()):
                self._remove(queue)
            self._router = Router()
            self._peers.reverse()
            if self.is_up:
                self._return_all()

    def block(self) -> None:
        """Hold publishers back, as a memory or disk alarm does; consumers go on."""
        with self.locked():
            self.is_blocked = True
            for peer in list(self._peers):
                peer.blocked()

    def unblock(self) -> None:
        """Let publishers go on."""
        with self.locked():
            self.is_blocked = False
            for peer in list(self._peers):
                peer.unblocked()

    def lose_acks(self) -> None:
        """Forget every ack from now until the next connection loss: those messages come again."""
        with self.locked():
            self.faults.losing_acks = True

    def lose_confirms(self) -> None:
        """Send no confirm from now until the next connection loss: publishers send again."""
        with self.locked():
            self.faults.losing_confirms = True

    def duplicate(self, count: int) -> None:
        """Put each of the next ``count`` published messages twice into its queues."""
        with self.locked():
            self.faults.duplicates = count

    def delay(self, seconds: float) -> None:
        """Let published messages arrive ``seconds`` late, in their order; 0 ends it."""
        with self.locked():
            self.faults.delay = seconds

    def reorder(self, seed: int | None) -> None:
        """Put messages at random places of their queues; None ends it."""
        with self.locked():
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
        with self.locked():
            self.publish(address, message)

    # The lock, time, and what happens outside of the lock

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the lock, which is not reentrant; afterwards do what was left with `later`."""
        effects: deque[Callable[[], None]] = deque()
        try:
            with self.lock:
                try:
                    yield
                finally:
                    while self._soon:
                        self._soon.popleft()()
                    effects, self._effects = self._effects, effects
        finally:
            for effect in effects:
                effect()

    def soon(self, action: Callable[[], None]) -> None:
        """Do something under the lock when the present action is over: keeps the stack flat."""
        self._soon.append(action)

    def later(self, effect: Callable[[], None]) -> None:
        """Do something as soon as the lock is free: futures and listeners are not ours."""
        self._effects.append(effect)

    def now(self) -> float:
        """Return the time on the broker's clock."""
        return self._clock.now()

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Do ``action`` under the lock at ``when``."""
        self._timers.at(when, action)

    def _run_locked(self, action: Callable[[], None]) -> None:
        with self.locked():
            action()

    # What transports ask for, under the lock

    def connect(self, peer: Peer) -> None:
        """Know a transport from now on."""
        self._peers.append(peer)

    def disconnect(self, peer: Peer) -> None:
        """Forget a transport, and delete its exclusive queues."""
        if peer in self._peers:
            self._peers.remove(peer)
        self._drop_exclusive(peer)

    def declare(self, topology: Topology, owner: Peer) -> None:
        """Declare for ``owner``; raise as `Transport.declare` does."""
        for exchange in topology.exchanges:
            self._router.declare(exchange)
        for queue in topology.queues:
            self._declare_queue(queue, owner)
        for binding in topology.bindings:
            if not binding.to_exchange and (bound := self.find(binding.destination)):
                bound.check_owner(owner)
            self._router.bind(binding)

    def delete_queue(self, name: str, owner: Peer) -> None:
        """Delete a queue if it is there."""
        queue = self.find(name)
        if queue is not None:
            queue.check_owner(owner)
            self._remove(queue)

    def inspect_queue(self, name: str, owner: Peer) -> QueueInfo | None:
        """Look at a queue."""
        queue = self.find(name)
        if queue is None:
            return None
        queue.check_owner(owner)
        queue.touch()  # as in RabbitMQ, where looking is a passive declaration
        queue.drop_expired()
        return QueueInfo(name, len(queue.ready), len(queue.consumers))

    def find(self, name: str) -> MemoryQueue | None:
        """Return a queue that exists now; one that was unused for too long does not."""
        queue = self._queues.get(name)
        if queue is None or queue.expires_at is None or queue.expires_at > self.now():
            return queue
        self._remove(queue)
        return None

    def open_queues(
        self,
        names: Sequence[str],
        owner: Peer,
        *,
        exclusive: bool,
        offset: StreamOffset | None,
    ) -> None:
        """Check that ``owner`` may consume all of them."""
        for name in names:
            queue = self.find(name)
            if queue is None:
                raise BrokerRefusal(f"no queue {name!r} to consume: declare it first")
            check_exclusive(queue.spec, exclusive=exclusive)
            check_offset(queue.spec, offset)
            queue.check_consumer(owner, exclusive=exclusive)

    def publish(self, address: Address, message: Message) -> bool | None:
        """Route a message. True: in its queues; False: there is none; None: a queue is full."""
        size = len(message.body)
        if size > self.max_message_size:
            raise MessageTooLarge(size, self.max_message_size)
        queues = self._route(address.exchange, address.routing_key)
        for queue in queues:
            if not queue.has_room_for(size):
                return None
        copies = 1
        if self.faults.duplicates > 0:
            self.faults.duplicates -= 1
            copies = 2
        for _ in range(copies):
            self._enqueue(queues, Stored(message, address.exchange, address.routing_key))
        return bool(queues)

    def when_room(self, address: Address, size: int, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when the queue that has no room for ``size`` bytes may have some."""
        queues = self._route(address.exchange, address.routing_key)
        next(queue for queue in queues if not queue.has_room_for(size)).on_room.append(tell)

    def dead_letter(self, exchange: str, stored: Stored) -> None:
        """Publish a dead letter once the present action is over."""
        self.soon(lambda: self._bury(exchange, stored))

    # Inside

    def _route(self, exchange: str, routing_key: str) -> list[MemoryQueue]:
        found = (self.find(name) for name in self._router.route(exchange, routing_key))
        return [queue for queue in found if queue is not None]

    def _enqueue(self, queues: Sequence[MemoryQueue], stored: Stored) -> None:
        for queue in queues:
            order = self.faults.order
            at = order.randint(0, len(queue.ready)) if order else None
            queue.enqueue(replace(stored), at)

    def _bury(self, exchange: str, stored: Stored) -> None:
        try:
            queues = self._route(exchange, stored.routing_key)
        except BrokerRefusal:
            return  # as RabbitMQ: a dead-letter exchange that is missing takes nothing
        # A message that dies of itself in a circle is dropped (RabbitMQ, dead lettering).
        circle = set() if _was_rejected(stored) else {queue for queue, _ in stored.deaths}
        self._enqueue([queue for queue in queues if queue.spec.name not in circle], stored)

    def _declare_queue(self, spec: Queue, owner: Peer) -> None:
        check_queue(spec)
        there = self.find(spec.name)
        if there is None:
            kind = MemoryStream if spec.type is QueueType.STREAM else MemoryQueue
            self._queues[spec.name] = kind(spec, owner, self)
            self._router.add_queue(spec.name)
            return
        if there.spec.exclusive and there.owner is not owner:
            raise ResourceLocked(spec.name)
        if _form(there.spec) != _form(spec):
            raise BrokerRefusal(
                f"queue {spec.name!r} exists with other arguments ({_describe(there.spec)}; asked "
                f"for: {_describe(spec)}): delete it, or use another virtual host"
            )
        if there.spec.arguments != spec.arguments:
            _log.warning("queue %r has other amounts: it is used as it is", spec.name)
        there.touch()

    def _remove(self, queue: MemoryQueue) -> None:
        del self._queues[queue.spec.name]
        self._router.remove_queue(queue.spec.name)
        queue.ready.clear()
        queue.consumers.clear()
        queue.tell_room()
        for peer in list(self._peers):
            peer.cancelled(queue.spec.name)

    def _drop_exclusive(self, owner: Peer) -> None:
        for queue in list(self._queues.values()):
            if queue.spec.exclusive and queue.owner is owner:
                self._remove(queue)

    def _lose_all(self, reason: str) -> None:
        for peer in list(self._peers):
            peer.lost(reason)
        for peer in list(self._peers):
            self._drop_exclusive(peer)
        self.faults.losing_acks = self.faults.losing_confirms = False

    def _return_all(self) -> None:
        for peer in list(self._peers):
            peer.returned()

    def _recover(self, queue: MemoryQueue) -> None:
        if not queue.spec.durable:
            self._remove(queue)
            return
        queue.ready = deque(stored for stored in queue.ready if stored.message.persistent)
        queue.ready_bytes = sum(len(stored.message.body) for stored in queue.ready)
        for stored in queue.ready:
            stored.redelivered = True
        queue.touch()


def _was_rejected(stored: Stored) -> bool:
    return any(reason == "rejected" for _, reason in stored.deaths)


def _form(spec: Queue) -> Queue:
    """What of a queue must be as it is declared: all but amounts."""
    fixed = {name: value for name, value in spec.arguments.items() if name not in AMOUNTS}
    return replace(spec, arguments=fixed)


def _describe(spec: Queue) -> str:
    words = [spec.type.value, *(["durable"] if spec.durable else [])]
    words += ["exclusive"] if spec.exclusive else []
    return " ".join([*words, *(f"{name}={value}" for name, value in spec.arguments.items())])
