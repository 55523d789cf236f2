"""Consumer of the memory broker."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flmq.common.errors import FlmqError
from flmq.transport.base import Consumer, Delivery, StreamOffset, offset_of
from flmq.transport.closed import consumer_closed, not_ours, say_dropped
from flmq.transport.memory.broker import MemoryBroker
from flmq.transport.memory.queue import MemoryQueue, Stored
from flmq.transport.window import at_most, share_of_prefetch

__all__ = ["MemoryConsumer"]


@dataclass(frozen=True, slots=True)
class _Tag:
    consumer: object
    number: int


class MemoryConsumer(Consumer):
    """Receive messages from queues of a `MemoryBroker`; created by `MemoryTransport.consumer`."""

    def __init__(
        self,
        broker: MemoryBroker,
        queues: Sequence[str],
        *,
        prefetch: int,
        each: int,
        exclusive: bool,
        offset: StreamOffset | None,
        on_close: Callable[[MemoryConsumer], None],
    ) -> None:
        """Create a consumer without subscriptions; see `subscribe`."""
        self.queues = tuple(queues)
        self.exclusive = exclusive
        self.offset = offset
        self.patient = False
        """Whether a queue that is gone is waited for."""
        self.offsets: dict[str, StreamOffset] = {}
        self.subscribed: dict[str, MemoryQueue] = {}
        self._broker = broker
        self._on_close = on_close
        self._arrived = threading.Condition(broker.scheduler.lock)
        self._buffer: deque[Delivery] = deque()
        self._share = share_of_prefetch(prefetch, each, len(self.queues))
        """RabbitMQ counts prefetch per queue."""
        self._prefetch = at_most(prefetch, each, len(self.queues))
        """Messages that may be handed out and un-acked, of all queues."""
        self._unacked: dict[int, tuple[MemoryQueue, Stored]] = {}
        self._taken: Counter[str] = Counter()
        """Number of un-acked messages of each queue."""
        self._lost_acks: list[tuple[MemoryQueue, Stored]] = []
        self._next = 0
        self._arrived_bytes = 0
        self._problem: FlmqError | None = None
        self._closed = False

    # Consumer

    def receive(self, timeout: float | None = None) -> Delivery | None:
        """Return the next delivery, or None after ``timeout`` seconds."""
        with self._broker.scheduler.locked():
            self._arrived.wait_for(self._has_news, timeout)
            if self._closed:
                raise consumer_closed()
            if self._may_hand_over():
                return self._buffer.popleft()
            if self._problem is not None:
                raise self._problem
            return None

    def ack(self, delivery: Delivery) -> None:
        """Tell the broker to forget the message."""
        with self._broker.scheduler.locked():
            settled = self._settle(delivery, "ack")
            if settled is None:
                return
            if self._broker.faults.losing_acks:
                self._lost_acks.append(settled)
            settled[0].dispatch()

    def reject(self, delivery: Delivery, *, requeue: bool) -> None:
        """Return the message to its queue, or drop it to the dead-letter exchange."""
        with self._broker.scheduler.locked():
            settled = self._settle(delivery, "reject")
            if settled is None:
                return
            queue, stored = settled
            if requeue:
                queue.give_back([stored])
            else:
                queue.reject(stored)
            queue.dispatch()

    @property
    def arrived(self) -> int:
        """Bytes delivered so far."""
        return self._arrived_bytes

    def close(self) -> None:
        """Stop consuming; un-acked messages go back."""
        with self._broker.scheduler.locked():
            self.end()

    # What its transport does, under the broker's lock

    def subscribe(self) -> None:
        """Consume every queue."""
        for name in self.queues:
            queue = self._broker.vhost.find(name)
            assert queue is not None, "open_queues was called under the same lock"
            self.subscribed[name] = queue
            queue.subscribe(self)

    def lost(self) -> None:
        """Lose the connection: everything un-acked goes back, its tags become stale."""
        subscribed, self.subscribed = self.subscribed, {}
        for delivery in reversed(self._buffer):
            offset = offset_of(delivery)
            if offset is not None and delivery.queue in self.offsets:
                self.offsets[delivery.queue] = offset  # not received yet
        self._buffer.clear()
        back: dict[str, list[Stored]] = {}
        for queue, stored in [*self._lost_acks, *self._unacked.values()]:
            back.setdefault(queue.spec.name, []).append(stored)
        self._lost_acks.clear()
        self._unacked.clear()
        self._taken.clear()
        for name, queue in subscribed.items():
            queue.unsubscribe(self)
            queue.give_back(back.get(name, ()))
            queue.dispatch()

    def fail(self, problem: FlmqError) -> None:
        """Make `receive` raise ``problem``: the queues can no longer be consumed."""
        self._problem = problem
        self._arrived.notify_all()

    def end(self) -> None:
        """Close the consumer."""
        if not self._closed:
            self._closed = True
            self.lost()
            self._on_close(self)
            self._arrived.notify_all()

    # What its queues do (flmq.transport.memory.queue.QueueConsumer)

    def has_room(self, queue: MemoryQueue) -> bool:
        """Return whether prefetch allows one more message of ``queue``."""
        return self._taken[queue.spec.name] < self._share

    def take(self, queue: MemoryQueue, stored: Stored) -> None:
        """Accept a message."""
        self._next += 1
        self._unacked[self._next] = (queue, stored)
        self._taken[queue.spec.name] += 1
        self._arrived_bytes += len(stored.message.body)
        self._buffer.append(
            Delivery(
                message=stored.message,
                queue=queue.spec.name,
                redelivered=stored.redelivered,
                tag=_Tag(self, self._next),
                exchange=stored.exchange,
                routing_key=stored.routing_key,
            )
        )
        self._arrived.notify()

    # Inside

    def _has_news(self) -> bool:
        return self._closed or self._problem is not None or self._may_hand_over()

    def _may_hand_over(self) -> bool:
        # Prefetch counts for each queue there, and over all of them here.
        handed = len(self._unacked) - len(self._buffer)
        return bool(self._buffer) and handed < self._prefetch

    def _settle(self, delivery: Delivery, verb: str) -> tuple[MemoryQueue, Stored] | None:
        tag = delivery.tag
        if not isinstance(tag, _Tag) or tag.consumer is not self:
            raise not_ours()
        settled = self._unacked.pop(tag.number, None)
        if settled is not None:
            self._taken[settled[0].spec.name] -= 1
            self._arrived.notify()
        else:
            say_dropped(verb, delivery)
        return settled
