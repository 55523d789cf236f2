"""What a consumer consumes, and how; and where it is in the streams among its queues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flmq.transport.base import STREAM_OFFSET_HEADER, Delivery, StreamOffset, offset_of
from flmq.transport.rabbitmq.channel_ops import Steps

__all__ = ["Subscription"]

OnMessage = Callable[[str, Any, Any, Any, bytes], None]
"""Takes a queue's name, and what pika calls back with: channel, method, properties, body."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One consumer's queues. For its connection's thread alone."""

    queues: tuple[str, ...]
    prefetch: int
    exclusive: bool
    offset: StreamOffset | None
    """Where to begin to read streams."""
    lock_patience: float
    """Seconds for which, after a loss, a dead connection of our own may hold a queue."""
    declared: Callable[[str], bool]
    """Whether a queue was declared by this transport, and so can be again."""
    _offsets: dict[str, StreamOffset | None] = field(init=False)
    """Where to go on to read each stream; None: no stream."""

    def __post_init__(self) -> None:
        """Begin where the streams are to be read from."""
        self._offsets = dict.fromkeys(self.queues, self.offset)

    def __str__(self) -> str:
        """The queues' names."""
        return ", ".join(self.queues)

    def consume(self, channel: Any, on_message: OnMessage) -> Steps[None]:
        """Consume every queue over ``channel``. RabbitMQ counts prefetch per queue."""
        share = max(1, self.prefetch // len(self.queues))
        yield partial(channel.basic_qos, prefetch_count=share)
        for queue in self.queues:
            offset = self._offsets[queue]
            yield partial(
                channel.basic_consume,
                queue,
                partial(on_message, queue),
                exclusive=self.exclusive,
                arguments=None if offset is None else {STREAM_OFFSET_HEADER: offset},
            )

    def read_up_to(self, delivery: Delivery, more: int) -> None:
        """Note where in its stream to go on: at a message, or ``more`` behind it."""
        offset = offset_of(delivery)
        if offset is not None and self._offsets[delivery.queue] is not None:
            self._offsets[delivery.queue] = offset + more
