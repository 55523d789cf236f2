"""Sequences of AMQP methods on a channel, without blocking its thread.

An operation is a generator: each ``yield`` gives a method that takes ``callback=``, and receives
the broker's answer. If the channel closes, the operation fails. Where there are thousands of things
to do, they are sent many at a time, and the broker answers the last: what fails closes the channel
and names itself, as it would alone.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from functools import partial
from itertools import islice
from typing import Any, Generic, TypeVar

from flmq.common.errors import BrokerError
from flmq.common.urls import BrokerUrl
from flmq.transport.base import QueueInfo
from flmq.transport.rabbitmq.errors import translate
from flmq.transport.topology import Topology

__all__ = [
    "Steps",
    "StepsRun",
    "declare",
    "delete_queue",
    "find_exchange",
    "in_batches",
    "inspect_queue",
    "look_for",
]

T = TypeVar("T")

Method = Callable[..., object]
"""Sends an AMQP method; without ``callback=``, the broker does not answer unless it refuses."""

Steps = Generator[Method, Any, T]

_BATCH = 200
"""Methods sent at a time: a round trip each would double what a declaration takes nearby, and far
from the broker be all that it takes; and all at once would be heard of after minutes alone."""


class StepsRun(Generic[T]):
    """One run of an operation; `done` is called once, with its result or error."""

    def __init__(
        self,
        channel: Any,
        steps: Steps[T],
        done: Callable[[T | None, BrokerError | None], None],
        url: BrokerUrl,
    ) -> None:
        """Start on an open ``channel``."""
        self._steps = steps
        self._done = done
        self._url = url
        self._over = False
        channel.add_on_close_callback(self._closed)
        self._advance(None)

    def _advance(self, answer: Any) -> None:
        if self._over:
            return
        try:
            method = self._steps.send(answer)
            method(callback=self._advance)
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Exception as error:
            self._finish(None, translate(error, self._url))

    def _closed(self, _: Any, reason: BaseException) -> None:
        self._finish(None, translate(reason, self._url))

    def _finish(self, result: T | None, error: BrokerError | None) -> None:
        if not self._over:
            self._over = True
            self._steps.close()
            self._done(result, error)


def declare(topology: Topology, channel: Any) -> Steps[None]:
    """Declare everything, in the topology's order."""
    yield from in_batches(_declarations(topology, channel))


def _declarations(topology: Topology, channel: Any) -> Iterable[Method]:
    for exchange in topology.exchanges:
        yield partial(
            channel.exchange_declare,
            exchange.name,
            exchange.type.value,
            durable=True,
            internal=exchange.internal,
        )
    for queue in topology.queues:
        yield partial(
            channel.queue_declare,
            queue.name,
            durable=queue.durable,
            exclusive=queue.exclusive,
            arguments={"x-queue-type": queue.type.value, **queue.arguments},
        )
    for binding in topology.bindings:
        bind = channel.exchange_bind if binding.to_exchange else channel.queue_bind
        yield partial(bind, binding.destination, binding.source, binding.routing_key)


def look_for(topology: Topology, channel: Any) -> Steps[None]:
    """Look whether every exchange and queue is there; the broker answers 404 if one is not.

    Those that are durable are there with their bindings.
    """
    yield from in_batches(
        [
            *(
                partial(channel.exchange_declare, one.name, one.type.value, passive=True)
                for one in topology.exchanges
            ),
            *(partial(channel.queue_declare, one.name, passive=True) for one in topology.queues),
        ]
    )


def in_batches(methods: Iterable[Method]) -> Steps[None]:
    """Send ``methods`` in order, with one answer for many of them."""
    left = iter(methods)
    while batch := list(islice(left, _BATCH)):
        yield partial(_send, batch)


def _send(batch: list[Method], callback: Callable[[Any], None]) -> None:
    for method in batch[:-1]:
        method()
    batch[-1](callback=callback)


def delete_queue(name: str, channel: Any) -> Steps[None]:
    """Delete a queue; no error if there is none."""
    yield partial(channel.queue_delete, name)


def find_exchange(name: str, channel: Any) -> Steps[None]:
    """Look whether an exchange is there; the broker answers 404 if it is not."""
    yield partial(channel.exchange_declare, name, passive=True)


def inspect_queue(name: str, channel: Any) -> Steps[QueueInfo]:
    """Return a queue's counts; the broker answers 404 if there is none."""
    answer = yield partial(channel.queue_declare, name, passive=True)
    return QueueInfo(name, answer.method.message_count, answer.method.consumer_count)
