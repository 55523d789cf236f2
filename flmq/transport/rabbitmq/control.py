"""The control connection: declares, deletes, inspects, and holds what is exclusive.

It never publishes. After a loss it redeclares everything before anything else happens over the
transport: publishers and consumers wait for that with `when_ready`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerError,
    BrokerUnavailable,
    ResourceLocked,
    TransportClosed,
)
from flmq.common.logger import get_logger
from flmq.transport.closed import transport_closed
from flmq.transport.declared import Declared
from flmq.transport.rabbitmq.channel_ops import Steps, StepsRun, declare, look_for
from flmq.transport.rabbitmq.connection import IOConnection
from flmq.transport.rabbitmq.errors import OtherAmount, reply_code
from flmq.transport.retry import Backoff, current_pace
from flmq.transport.topology import Topology

__all__ = ["Control"]

_log = get_logger(__name__)

_MANY = 500
"""Queues whose bindings take so long to declare again that they are believed to be there."""

T = TypeVar("T")
Work = Callable[[Any], Steps[T]]
"""Creates an operation on the given channel."""


@dataclass(slots=True, eq=False)
class _Job:
    work: Work[Any]
    done: Callable[[Any, BrokerError | None], None]


class Control:
    """Run operations on the control connection, one at a time, in order. Thread-safe."""

    def __init__(self, connection: IOConnection, declared: Declared) -> None:
        """Use ``connection``; redeclare ``declared`` whenever it comes back."""
        self._connection = connection
        self._declared = declared
        self._lock = threading.Lock()
        self._jobs: deque[_Job] = deque()
        self._current: _Job | None = None
        self._amqp: Any = None
        self._ready = False
        self._losses = 0
        """How often it was lost: what waits over a connection that is gone waits in vain."""
        self._waiting: list[Callable[[], None]] = []
        self._may_be_there = False
        """Whether thousands of queues are looked for, before they are declared once more."""
        self._backoff = Backoff()
        self._closed = False
        connection.attach(self)

    # For any thread

    def call(self, work: Work[T]) -> T:
        """Run ``work`` and wait for it, over as many connections as it takes."""
        future: Future[T] = Future()

        def done(result: Any, error: BrokerError | None) -> None:
            if error is None:
                future.set_result(result)
            else:
                future.set_exception(error)

        self._enqueue(_Job(work, done))
        return future.result()

    def declare(self, topology: Topology) -> None:
        """Declare ``topology``, and wait; a queue that differs in amounts only stays as it is."""
        self.call(lambda channel: declare(self._declared.as_found(topology), channel))

    def restore(self, done: Callable[[BrokerError | None], None]) -> None:
        """Redeclare everything; ``done`` is called on the control connection's thread."""
        self._enqueue(_Job(self._declare_all, lambda _, error: done(error)))

    def when_ready(self, action: Callable[[], None]) -> None:
        """Call ``action`` on the control connection's thread once everything is declared."""

        def check() -> None:
            if self._ready:
                action()
            else:
                self._waiting.append(action)

        self._connection.post(check)

    def close(self) -> None:
        """Fail all waiting and later operations with `TransportClosed`."""
        with self._lock:
            self._closed = True
            jobs = [*([self._current] if self._current else []), *self._jobs]
            self._jobs.clear()
            self._current = None
        for job in jobs:
            job.done(None, transport_closed())

    # For the connection's thread (ConnectionUser)

    def connection_up(self, connection: Any) -> None:
        """Redeclare everything, then run the waiting operations."""
        self._amqp = connection
        self._may_be_there = len(self._declared.shared().queues) >= _MANY
        with self._lock:
            self._jobs.appendleft(_Job(self._declare_all, self._restored))
        self._next()

    def connection_lost(self, problem: BrokerError) -> None:
        """Keep the current operation for the next connection."""
        self._amqp = None
        self._ready = False
        self._losses += 1
        with self._lock:
            kept = [*([self._current] if self._current else []), *self._jobs]
            self._jobs = deque(job for job in kept if job.done != self._restored)
            self._current = None

    # Inside

    def _enqueue(self, job: _Job) -> None:
        with self._lock:
            closed = self._closed
            if not closed:
                self._jobs.append(job)
        if closed:
            job.done(None, transport_closed())
        else:
            self._connection.post(self._next)

    def _is_up(self) -> bool:
        return self._amqp is not None and bool(self._amqp.is_open)

    def _next(self) -> None:
        if not self._is_up():
            return
        with self._lock:
            if self._current is not None or not self._jobs:
                return
            job = self._current = self._jobs.popleft()
        self._amqp.channel(on_open_callback=partial(self._start, job))

    def _start(self, job: _Job, channel: Any) -> None:
        def done(result: Any, error: BrokerError | None) -> None:
            if channel.is_open:
                channel.close()
            self._finish(job, result, error)

        StepsRun(channel, job.work(channel), done, self._connection.url)

    def _finish(self, job: _Job, result: Any, error: BrokerError | None) -> None:
        if isinstance(error, BrokerUnavailable | TransportClosed) and not self._is_up():
            return  # connection_lost keeps the job
        found = isinstance(error, OtherAmount) and self._takes_as_found(error)
        if self._may_be_there and job.work == self._declare_all:
            self._may_be_there = False
            found |= reply_code(error) == 404  # one is not: declare them all
        with self._lock:
            if self._current is not job:
                return
            self._current = None
            if found:
                self._jobs.appendleft(job)
            again = isinstance(error, BrokerUnavailable) and job.done != self._restored
            if again:
                self._jobs.appendleft(job)
        if found:
            self._next()
            return
        if again:
            self._connection.states.hold("call", str(error))
            self._connection.call_later(self._backoff.next(), self._next)
            return
        self._connection.states.release("call")
        if error is None:
            self._backoff.reset()
        job.done(result, error)
        self._next()

    def _takes_as_found(self, other: OtherAmount) -> bool:
        """Note a queue's actual amounts for the next declaration; False if tried before."""
        if not self._declared.find(other.queue, other.argument, other.found):
            return False
        _log.warning("%s", other)
        return True

    def _declare_all(self, channel: Any) -> Steps[None]:
        # Streams last: one whose node is down must not hold up other queues.
        shared, streams = self._declared.shared(), self._declared.streams()
        if self._may_be_there:
            yield from look_for(shared, channel)
            shared = Topology()
        for topology in (shared, self._declared.exclusive(), streams):
            yield from declare(self._declared.as_found(topology), channel)

    def _restored(self, _: None, error: BrokerError | None) -> None:
        if error is None:
            self._connection.states.release("restore")
        elif isinstance(error, ResourceLocked):
            _log.warning("%s; perhaps our own that died: trying again", error)
            self._restore_later(current_pace().locked)
        elif isinstance(error, BrokerUnavailable | BrokerAccessRefused):
            self._connection.states.hold("restore", str(error))
            self._restore_later(current_pace().refused)
        else:
            _log.warning("cannot declare again what was declared before: %s", error)
        # Operations that do not need what is missing can go on.
        self._ready = True
        waiting, self._waiting = self._waiting, []
        for action in waiting:
            action()

    def _restore_later(self, seconds: float) -> None:
        """Declare everything once more, unless another connection has begun with that."""
        losses = self._losses

        def again() -> None:
            if losses == self._losses:
                self._enqueue(_Job(self._declare_all, self._restored))

        self._connection.call_later(seconds, again)
