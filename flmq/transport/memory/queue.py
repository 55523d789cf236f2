"""One queue of the memory broker: messages, consumers, limits, expiry, dead letters."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from flmq.common.errors import BrokerRefusal, ResourceLocked
from flmq.transport.base import Message, StreamOffset
from flmq.transport.checks import check_short
from flmq.transport.memory.scheduler import Scheduler
from flmq.transport.topology import Queue, QueueType

__all__ = ["MemoryQueue", "QueueConsumer", "QueueHost", "Stored"]

_ARGUMENTS: Mapping[str, type] = {
    "x-dead-letter-exchange": str,
    "x-dead-letter-routing-key": str,
    "x-delivery-limit": int,
    "x-expires": int,
    "x-max-age": str,
    "x-max-length": int,
    "x-max-length-bytes": int,
    "x-message-ttl": int,
    "x-overflow": str,
    "x-single-active-consumer": bool,
    "x-stream-max-segment-size-bytes": int,
}


@dataclass(slots=True)
class Stored:
    """A message in one queue."""

    message: Message
    exchange: str
    routing_key: str
    deaths: tuple[tuple[str, str], ...] = ()
    """(queue, reason) for each time it was dead-lettered."""
    sequence: int = 0
    expires_at: float | None = None
    redelivered: bool = False
    returns: int = 0


class QueueConsumer(Protocol):
    """A consumer as seen by a queue."""

    exclusive: bool
    offset: StreamOffset | None
    """Where to start reading streams."""
    offsets: dict[str, StreamOffset]
    """Where to continue reading each stream that was started."""

    def has_room(self, queue: MemoryQueue) -> bool:
        """Return whether prefetch allows one more message of ``queue``."""

    def take(self, queue: MemoryQueue, stored: Stored) -> None:
        """Accept a message, which is un-acked from now on."""


class QueueHost(Protocol):
    """A virtual host as seen by a queue."""

    scheduler: Scheduler

    def dead_letter(self, exchange: str, stored: Stored) -> None:
        """Publish a dead letter."""


@dataclass(slots=True, eq=False)
class MemoryQueue:
    """A queue. Not thread-safe: the broker locks."""

    spec: Queue
    owner: object
    """The transport that owns an exclusive queue."""
    host: QueueHost
    ready: deque[Stored] = field(default_factory=deque)
    ready_bytes: int = 0
    consumers: deque[QueueConsumer] = field(default_factory=deque)
    on_room: deque[Callable[[], None]] = field(default_factory=deque)
    """Callbacks of publishers refused because the queue was full; called when there is room."""
    expires_at: float | None = None
    """When the unused queue expires; None while it is in use, or if it never does."""
    _sequence: int = 0

    def __post_init__(self) -> None:
        """Validate the arguments as a broker would."""
        check_queue(self.spec)
        self.touch()

    def argument(self, name: str) -> int | None:
        """Return a numeric argument; None if it was not given."""
        value = self.spec.arguments.get(name)
        return None if value is None else int(value)

    def touch(self) -> None:
        """Restart ``x-expires``, as use and declaration do."""
        expires = self.argument("x-expires")
        unused = expires is not None and not self.consumers
        self.expires_at = self.host.scheduler.now() + expires / 1000 if unused and expires else None

    # Coming in

    def has_room_for(self, size: int) -> bool:
        """Return whether a message of ``size`` bytes fits; always True for drop-head queues."""
        return self.spec.arguments.get("x-overflow") != "reject-publish" or not self._over(1, size)

    def enqueue(self, stored: Stored, at: int | None = None) -> None:
        """Add a message at the tail, or at position ``at`` (a fault), and deliver."""
        self._sequence += 1
        stored.sequence = self._sequence
        self._set_expiry(stored)
        if not self.ready and (consumer := self._next_consumer()) is not None:
            consumer.take(self, stored)  # even if it expires at once: "immediately or never"
            return
        if at is None:
            self.ready.append(stored)
        else:
            self.ready.insert(at, stored)
        self.ready_bytes += len(stored.message.body)
        self.dispatch()
        while self.ready and self._over(0, 0):
            self._die(self._pop(), "maxlen")

    def give_back(self, returned: Iterable[Stored]) -> None:
        """Return un-acked messages to their places; they count as redelivered."""
        limit = self.argument("x-delivery-limit")
        keep: list[Stored] = []
        for stored in returned:
            stored.redelivered = True
            stored.returns += 1
            if limit is not None and stored.returns > limit:
                self._die(stored, "delivery_limit")
            else:
                keep.append(stored)
                self.ready_bytes += len(stored.message.body)
        if not keep:
            return
        last = max(stored.sequence for stored in keep)
        while self.ready and self.ready[0].sequence < last:
            keep.append(self.ready.popleft())
        keep.sort(key=lambda stored: stored.sequence)
        self.ready.extendleft(reversed(keep))

    def recover(self) -> None:
        """Recover from a restart: drop what is not persistent, redeliver the rest."""
        self.ready = deque(stored for stored in self.ready if stored.message.persistent)
        self.ready_bytes = sum(len(stored.message.body) for stored in self.ready)
        for stored in self.ready:
            stored.redelivered = True
        self.touch()

    # Going out

    def dispatch(self) -> None:
        """Deliver to consumers with room, in round-robin order."""
        while True:
            self.drop_expired()
            if not self.ready or (consumer := self._next_consumer()) is None:
                break
            consumer.take(self, self._pop())
        self.tell_room()

    def drop_expired(self) -> None:
        """Drop expired messages from the head, the only place where RabbitMQ looks for them."""
        now = self.host.scheduler.now()
        while self.ready and (expiry := self.ready[0].expires_at) is not None and expiry <= now:
            self._die(self._pop(), "expired")

    def reject(self, stored: Stored) -> None:
        """Drop a rejected message to the dead-letter exchange."""
        self._die(stored, "rejected")

    # Consumers

    def check_consumer(self, owner: object, *, exclusive: bool) -> None:
        """Refuse a consumer that is excluded by another one or by the queue's owner."""
        self.check_owner(owner)
        held = any(consumer.exclusive for consumer in self.consumers)
        if held or (exclusive and self.consumers):
            raise ResourceLocked(self.spec.name)

    def check_owner(self, owner: object) -> None:
        """Refuse everybody but the owner of an exclusive queue."""
        if self.spec.exclusive and self.owner is not owner:
            raise ResourceLocked(self.spec.name)

    def subscribe(self, consumer: QueueConsumer) -> None:
        """Add a consumer and deliver to it."""
        self.consumers.append(consumer)
        self.touch()
        self.dispatch()

    def unsubscribe(self, consumer: QueueConsumer) -> None:
        """Remove a consumer."""
        if consumer in self.consumers:
            self.consumers.remove(consumer)
            self.touch()

    def _next_consumer(self) -> QueueConsumer | None:
        if self.spec.arguments.get("x-single-active-consumer"):
            active = self.consumers[0] if self.consumers else None
            return active if active is not None and active.has_room(self) else None
        for _ in range(len(self.consumers)):
            consumer = self.consumers[0]
            self.consumers.rotate(-1)
            if consumer.has_room(self):
                return consumer
        return None

    # Inside

    def _pop(self) -> Stored:
        stored = self.ready.popleft()
        self.ready_bytes -= len(stored.message.body)
        return stored

    def _over(self, more: int, more_bytes: int) -> bool:
        length = self.argument("x-max-length")
        size = self.argument("x-max-length-bytes")
        return (length is not None and len(self.ready) + more > length) or (
            size is not None and self.ready_bytes + more_bytes > size
        )

    def _set_expiry(self, stored: Stored) -> None:
        ttl = self.argument("x-message-ttl")
        choices = [t for t in (stored.message.expiration, ttl and ttl / 1000) if t is not None]
        if not choices:
            return
        stored.expires_at = self.host.scheduler.now() + min(choices)
        if "x-dead-letter-exchange" in self.spec.arguments:
            # Behind the head, nobody can tell whether it was dropped on time or when it became the
            # head.
            self.host.scheduler.at(stored.expires_at, self.dispatch)

    def _die(self, stored: Stored, reason: str) -> None:
        exchange = self.spec.arguments.get("x-dead-letter-exchange")
        if not isinstance(exchange, str):
            return
        key = self.spec.arguments.get("x-dead-letter-routing-key", stored.routing_key)
        self.host.dead_letter(exchange, died(stored, self.spec.name, reason, str(key)))

    def tell_room(self) -> None:
        """Let publishers that were refused try again."""
        while self.on_room:
            self.host.scheduler.soon(self.on_room.popleft())


def died(stored: Stored, queue: str, reason: str, routing_key: str) -> Stored:
    """Return a message's dead letter, with the headers that RabbitMQ sets."""
    old = stored.message
    headers = {
        "x-first-death-exchange": stored.exchange,
        "x-first-death-queue": queue,
        "x-first-death-reason": reason,
        **old.headers,
    }
    message = Message(
        body=old.body,
        type=old.type,
        message_id=old.message_id,
        correlation_id=old.correlation_id,
        user_id=old.user_id,
        headers=headers,
        persistent=old.persistent,
    )
    return Stored(message, stored.exchange, routing_key, (*stored.deaths, (queue, reason)))


def check_queue(spec: Queue) -> None:
    """Refuse arguments that are unknown, or of the wrong type or range."""
    check_short("queue name", spec.name)
    for name, value in spec.arguments.items():
        wanted = _ARGUMENTS.get(name)
        if wanted is None:
            raise BrokerRefusal(f"queue {spec.name!r}: unknown argument {name!r}")
        least = 1 if name == "x-expires" else 0
        if type(value) is not wanted or (wanted is int and int(value) < least):
            raise BrokerRefusal(f"queue {spec.name!r}: {name} cannot be {value!r}")
    if spec.arguments.get("x-overflow", "drop-head") not in ("drop-head", "reject-publish"):
        raise BrokerRefusal(f"queue {spec.name!r}: x-overflow is drop-head or reject-publish")
    if spec.type is QueueType.QUORUM and (spec.exclusive or not spec.durable):
        raise BrokerRefusal(f"quorum queue {spec.name!r} must be durable and not exclusive")
