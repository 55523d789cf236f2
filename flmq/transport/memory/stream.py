"""A stream of the memory broker: messages stay for all readers, each reading from its offset."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from flmq.transport.base import STREAM_OFFSET_HEADER, StreamOffset
from flmq.transport.memory.queue import MemoryQueue, QueueConsumer, Stored

__all__ = ["MemoryStream"]

_MAX_BYTES = 2 * 1024**3
"""A stream on disk may keep more; in memory this is enough."""


@dataclass(slots=True, eq=False)
class MemoryStream(MemoryQueue):
    """A stream, as RabbitMQ shows it to AMQP 0-9-1 clients. ``sequence`` is the offset."""

    unix_clock: Callable[[], float] = time.time
    """The clock that datetimes refer to, whatever the broker's clock."""
    _cursors: dict[QueueConsumer, int] = field(default_factory=dict)
    _times: dict[int, float] = field(default_factory=dict)

    # Coming in

    def has_room_for(self, size: int) -> bool:
        """Return True: the oldest messages are dropped."""
        return True

    def enqueue(self, stored: Stored, at: int | None = None) -> None:
        """Append. Streams keep their order, whatever faults are set."""
        self._sequence += 1
        offset = self._sequence - 1
        headers = {**stored.message.headers, STREAM_OFFSET_HEADER: offset}
        stored.message = replace(stored.message, headers=headers)
        stored.sequence = offset
        self._times[offset] = self.unix_clock()
        self.ready.append(stored)
        self.ready_bytes += len(stored.message.body)
        while len(self.ready) > 1 and (self._over(0, 0) or self.ready_bytes > _MAX_BYTES):
            self._times.pop(self._pop().sequence)
        self.dispatch()

    def give_back(self, returned: Iterable[Stored]) -> None:
        """Do nothing: reading removes nothing."""

    def drop_expired(self) -> None:
        """Do nothing: messages of streams do not expire individually."""

    def reject(self, stored: Stored) -> None:
        """Do nothing: reading removes nothing."""

    # Going out

    def subscribe(self, consumer: QueueConsumer) -> None:
        """Start reading where the consumer wants to."""
        offset = consumer.offsets.get(self.spec.name, consumer.offset)
        assert offset is not None, "check_offset was called under the same lock"
        self._cursors[consumer] = self._resolve(offset)
        consumer.offsets[self.spec.name] = self._cursors[consumer]
        MemoryQueue.subscribe(self, consumer)

    def unsubscribe(self, consumer: QueueConsumer) -> None:
        """Remove a reader."""
        self._cursors.pop(consumer, None)
        MemoryQueue.unsubscribe(self, consumer)

    def dispatch(self) -> None:
        """Deliver to every reader as much as it has room for."""
        for consumer in self.consumers:
            while consumer.has_room(self) and (stored := self._at(self._cursors[consumer])):
                self._cursors[consumer] = stored.sequence + 1
                consumer.offsets[self.spec.name] = stored.sequence + 1
                consumer.take(self, replace(stored))

    def _at(self, offset: int) -> Stored | None:
        """Return the message at ``offset``, or the oldest one kept; None at the end."""
        if not self.ready:
            return None
        index = max(0, offset - self.ready[0].sequence)
        return self.ready[index] if index < len(self.ready) else None

    def _resolve(self, offset: StreamOffset) -> int:
        match offset:
            case "first":
                return 0
            case "next":
                return self._sequence
            case "last":
                return max(0, self._sequence - 1)
            case int():
                return offset
            case datetime():
                return self._since(offset.astimezone(UTC).timestamp())
        raise ValueError(f"no offset of a stream: {offset!r}")

    def _since(self, when: float) -> int:
        """Return the offset of the first message that came at ``when`` (Unix seconds) or later."""
        return next((o for o, time in self._times.items() if time >= when), self._sequence)
