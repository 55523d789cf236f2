"""The memory broker's virtual host: its exchanges, queues and streams, and its routing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flmq.common.errors import BrokerRefusal, ResourceLocked
from flmq.common.logger import get_logger
from flmq.transport.base import Address, Message, QueueInfo, StreamOffset
from flmq.transport.checks import check_exclusive, check_offset
from flmq.transport.memory.faults import Faults
from flmq.transport.memory.queue import MemoryQueue, Stored, check_queue
from flmq.transport.memory.routing import Router
from flmq.transport.memory.scheduler import Scheduler
from flmq.transport.memory.stream import MemoryStream
from flmq.transport.topology import AMOUNTS, Queue, QueueType, Topology

__all__ = ["VirtualHost"]

_log = get_logger(__name__)


class VirtualHost:
    """Declare queues, route and store messages. Not thread-safe: the scheduler's lock is held."""

    def __init__(
        self, scheduler: Scheduler, faults: Faults, on_removed: Callable[[str], None]
    ) -> None:
        """Start empty. ``on_removed`` is called with the name of each removed queue."""
        self.scheduler = scheduler
        self._faults = faults
        self._on_removed = on_removed
        self._router = Router()
        self._queues: dict[str, MemoryQueue] = {}

    # Queues, exchanges and bindings

    def declare(self, topology: Topology, owner: object) -> None:
        """Declare for ``owner``; raise as `Transport.declare` does."""
        for exchange in topology.exchanges:
            self._router.declare(exchange)
        for queue in topology.queues:
            self._declare_queue(queue, owner)
        for binding in topology.bindings:
            if not binding.to_exchange and (bound := self.find(binding.destination)):
                bound.check_owner(owner)
            self._router.bind(binding)

    def has_exchange(self, name: str) -> bool:
        """Return whether there is an exchange of that name."""
        return self._router.has_exchange(name)

    def delete_queue(self, name: str, owner: object) -> None:
        """Delete a queue if it exists."""
        queue = self.find(name)
        if queue is not None:
            queue.check_owner(owner)
            self._remove(queue)

    def delete_exclusive(self, owner: object) -> None:
        """Delete the exclusive queues of ``owner``, whose connection ended."""
        for queue in list(self._queues.values()):
            if queue.spec.exclusive and queue.owner is owner:
                self._remove(queue)

    def inspect_queue(self, name: str, owner: object) -> QueueInfo | None:
        """Return a queue's counts; None if there is none."""
        queue = self.find(name)
        if queue is None:
            return None
        queue.check_owner(owner)
        queue.touch()  # as in RabbitMQ, where inspecting is a passive declaration
        queue.drop_expired()
        return QueueInfo(name, len(queue.ready), len(queue.consumers))

    def find(self, name: str) -> MemoryQueue | None:
        """Return the queue; None if there is none, or if it has expired."""
        queue = self._queues.get(name)
        if queue is None or queue.expires_at is None or queue.expires_at > self.scheduler.now():
            return queue
        self._remove(queue)
        return None

    def open_queues(
        self,
        names: Sequence[str],
        owner: object,
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

    def restart(self) -> None:
        """Drop what a broker's restart loses: all that is not durable and persistent."""
        for queue in list(self._queues.values()):
            if queue.spec.durable:
                queue.recover()
            else:
                self._remove(queue)

    def wipe(self) -> None:
        """Drop everything."""
        for queue in list(self._queues.values()):
            self._remove(queue)
        self._router = Router()

    # Messages

    def publish(self, address: Address, message: Message) -> bool | None:
        """Route a message: True if enqueued, False if unroutable, None if a queue is full."""
        size = len(message.body)
        queues = self._route(address.exchange, address.routing_key)
        for queue in queues:
            if not queue.has_room_for(size):
                return None
        for _ in range(self._faults.copies()):
            self._enqueue(queues, Stored(message, address.exchange, address.routing_key))
        return bool(queues)

    def when_room(self, address: Address, size: int, tell: Callable[[], None]) -> None:
        """Call ``tell`` once when a queue that had no room for ``size`` bytes may have some."""
        queues = self._route(address.exchange, address.routing_key)
        next(queue for queue in queues if not queue.has_room_for(size)).on_room.append(tell)

    def dead_letter(self, exchange: str, stored: Stored) -> None:
        """Publish a dead letter after the current action."""
        self.scheduler.soon(lambda: self._publish_dead(exchange, stored))

    # Inside

    def _route(self, exchange: str, routing_key: str) -> list[MemoryQueue]:
        found = (self.find(name) for name in self._router.route(exchange, routing_key))
        return [queue for queue in found if queue is not None]

    def _enqueue(self, queues: Sequence[MemoryQueue], stored: Stored) -> None:
        for number, queue in enumerate(queues, 1):
            own = stored if number == len(queues) else replace(stored)
            queue.enqueue(own, self._faults.place(len(queue.ready)))

    def _publish_dead(self, exchange: str, stored: Stored) -> None:
        try:
            queues = self._route(exchange, stored.routing_key)
        except BrokerRefusal:
            return  # as RabbitMQ: without the dead-letter exchange, the message is dropped
        # A message that is dead-lettered in a cycle is dropped (RabbitMQ, dead lettering).
        circle = set() if _was_rejected(stored) else {queue for queue, _ in stored.deaths}
        self._enqueue([queue for queue in queues if queue.spec.name not in circle], stored)

    def _declare_queue(self, spec: Queue, owner: object) -> None:
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
        self._on_removed(queue.spec.name)


def _was_rejected(stored: Stored) -> bool:
    return any(reason == "rejected" for _, reason in stored.deaths)


def _form(spec: Queue) -> Queue:
    """Return the properties of a queue that must match: all but amounts."""
    fixed = {name: value for name, value in spec.arguments.items() if name not in AMOUNTS}
    return replace(spec, arguments=fixed)


def _describe(spec: Queue) -> str:
    words = [spec.type.value, *(["durable"] if spec.durable else [])]
    words += ["exclusive"] if spec.exclusive else []
    return " ".join([*words, *(f"{name}={value}" for name, value in spec.arguments.items())])
