"""What a consumer consumes, and its position in the streams among its queues."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from flmq.transport.base import STREAM_OFFSET_HEADER, Delivery, StreamOffset, offset_of
from flmq.transport.rabbitmq.channel_ops import Steps, in_batches
from flmq.transport.rabbitmq.tuning import basic_consume
from flmq.transport.window import at_most, share_of_prefetch

__all__ = ["Subscription"]

_SHOWN = 5
"""Maximum number of queues named in text."""

OnMessage = Callable[[str, Any, Any, Any, bytes], None]
"""Called with a queue's name and pika's arguments: channel, method, properties, body."""


@dataclass(slots=True, eq=False)
class Subscription:
    """One consumer's queues. For its connection's thread only."""

    queues: tuple[str, ...]
    prefetch: int
    each: int
    """Un-acked deliveries that every queue may have, however many there are; 0: its share."""
    exclusive: bool
    offset: StreamOffset | None
    """Where to start reading streams."""
    lock_patience: float
    """Seconds for which a dead connection of our own may still hold a queue after a loss."""
    declared: Callable[[str], bool]
    """Whether a queue was declared by this transport, and so can be declared again."""
    patient: bool = False
    """Whether a queue that others declared, and that is gone, is waited for."""
    _offsets: dict[str, StreamOffset | None] = field(init=False)
    """Where to continue reading each stream; None for other queues."""

    def __post_init__(self) -> None:
        """Start at the offset from which streams are to be read."""
        self._offsets = dict.fromkeys(self.queues, self.offset)

    @property
    def at_most(self) -> int:
        """Un-acked deliveries that may be handed out, of all queues."""
        return at_most(self.prefetch, self.each, len(self.queues))

    def __str__(self) -> str:
        """Return the queues' names, or the first few of many."""
        more = f" and {len(self.queues) - _SHOWN} more" if len(self.queues) > _SHOWN else ""
        return ", ".join(self.queues[:_SHOWN]) + more

    def consume(self, channel: Any, on_message: OnMessage) -> Steps[None]:
        """Consume every queue over ``channel``. RabbitMQ counts prefetch per queue."""
        share = share_of_prefetch(self.prefetch, self.each, len(self.queues))
        yield partial(channel.basic_qos, prefetch_count=share)
        yield from in_batches(self._consumers(channel, on_message))

    def _consumers(self, channel: Any, on_message: OnMessage) -> Iterator[Callable[..., object]]:
        for queue in self.queues:
            offset = self._offsets[queue]
            yield partial(
                basic_consume,
                channel,
                queue,
                partial(on_message, queue),
                exclusive=self.exclusive,
                arguments=None if offset is None else {STREAM_OFFSET_HEADER: offset},
            )

    def read_up_to(self, delivery: Delivery, more: int) -> None:
        """Note where to continue in the stream: at this message, or ``more`` behind it."""
        offset = offset_of(delivery)
        if offset is not None and self._offsets[delivery.queue] is not None:
            self._offsets[delivery.queue] = offset + more
