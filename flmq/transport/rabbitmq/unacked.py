"""A consumer's deliveries from arrival to ack, over any number of channels.

Each channel is a generation, and tags belong to one; an ack for an older one is dropped, as the
broker has requeued the message and delivers it again.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

from flmq.common.errors import BrokerError
from flmq.transport.base import Delivery
from flmq.transport.closed import consumer_closed, not_ours

__all__ = ["Tag", "UnackedDeliveries"]


@dataclass(frozen=True, slots=True)
class Tag:
    """Identifies a delivery to be settled."""

    owner: object
    generation: int
    number: int
    """The channel's delivery tag."""


class UnackedDeliveries:
    """Deliveries that wait for `receive`, and those that wait to be settled. Thread-safe."""

    def __init__(self, prefetch: int) -> None:
        """Hand out at most ``prefetch`` unsettled deliveries."""
        self._prefetch = prefetch
        self._changed = threading.Condition()
        self._buffer: deque[Delivery] = deque()
        self._handed: set[object] = set()
        self._unsettled: dict[object, None] = {}
        """In the order of arrival."""
        self._settlements: deque[tuple[Tag, str]] = deque()
        self._problem: BrokerError | None = None
        self.generation = 0
        """Changed on the connection's thread only."""
        self.closed = False

    # For any thread

    def receive(self, timeout: float | None) -> Delivery | None:
        """Return the next delivery, or None after ``timeout`` seconds (None: wait without limit).

        Raises what `fail` was given, and `TransportClosed` after `close`.
        """
        with self._changed:
            self._changed.wait_for(self._has_news, timeout)
            if self.closed:
                raise consumer_closed()
            if self._may_hand_over():
                delivery = self._buffer.popleft()
                self._handed.add(delivery.tag)
                return delivery
            if self._problem is not None:
                raise self._problem
            return None

    def settle(self, delivery: Delivery, verb: str) -> int:
        """Queue a delivery's settlement; return how many are queued, 0 if its channel is gone.

        Raises:
            ValueError: another consumer received it.
        """
        tag = delivery.tag
        if not isinstance(tag, Tag) or tag.owner is not self:
            raise not_ours()
        with self._changed:
            if tag not in self._unsettled:
                return 0
            del self._unsettled[tag]
            self._handed.discard(tag)
            self._settlements.append((tag, verb))
            self._changed.notify()
            return len(self._settlements)

    def fail(self, problem: BrokerError) -> None:
        """Make `receive` raise ``problem`` once nothing is left to hand out."""
        with self._changed:
            self._problem = problem
            self._changed.notify_all()

    def close(self) -> bool:
        """Make `receive` raise `TransportClosed`; return False if closed before."""
        with self._changed:
            if self.closed:
                return False
            self.closed = True
            self._changed.notify_all()
            return True

    # For the connection's thread

    @property
    def failed(self) -> bool:
        """Whether there is a problem for `receive` to raise."""
        return self._problem is not None

    def begin(self) -> int:
        """Start a new generation, for a new channel; return its number."""
        with self._changed:
            self.generation += 1
            return self.generation

    def add(self, delivery: Delivery, generation: int) -> bool:
        """Add a delivery of ``generation``; return False if that channel is gone."""
        with self._changed:
            if generation != self.generation or self.closed:
                return False
            self._buffer.append(delivery)
            self._unsettled[delivery.tag] = None
            self._changed.notify()
            return True

    def lose(self) -> list[Delivery]:
        """Forget everything, as the channel is gone; return what was not received, in order."""
        with self._changed:
            self.generation += 1
            unseen = list(self._buffer)
            self._buffer.clear()
            self._handed.clear()
            self._unsettled.clear()
            return unseen

    def take_settlements(self) -> tuple[deque[tuple[Tag, str]], int]:
        """Return the queued settlements in order, tags with the verb for each; and a number.

        Every delivery with a lower number has been settled, by these or before.
        """
        with self._changed:
            settlements, self._settlements = self._settlements, deque()
            oldest = next(iter(self._unsettled), None)
            if isinstance(oldest, Tag):
                return settlements, oldest.number
            return settlements, max((tag.number for tag, _ in settlements), default=0) + 1

    def _has_news(self) -> bool:
        return self.closed or self._problem is not None or self._may_hand_over()

    def _may_hand_over(self) -> bool:
        # The broker counts prefetch per queue, our interface over all queues.
        return bool(self._buffer) and len(self._handed) < self._prefetch
