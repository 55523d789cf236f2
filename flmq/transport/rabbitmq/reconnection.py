"""When to retry a lost connection: with backoff, and together with the transport's others."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from pika.adapters.select_connection import IOLoop

from flmq.common.errors import BrokerAccessRefused, BrokerError, TooManyConnections
from flmq.transport.rabbitmq.together import Together
from flmq.transport.retry import Backoff, current_pace

__all__ = ["Reconnection"]


class Reconnection:
    """The tries of one connection. For its thread only, except `follow`."""

    def __init__(
        self,
        loop: IOLoop,
        post: Callable[[Callable[[], None]], None],
        attempt: Callable[[], None],
        together: Together,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Call ``attempt`` for each try, on the thread of ``loop``, to which ``post`` hands over.

        While the broker is away, one of the connections of ``together`` tries on behalf of all.
        ``clock`` gives seconds.
        """
        self._loop = loop
        self._post = post
        self._attempt = attempt
        self._together = together
        self._clock = clock
        self._backoff = Backoff()
        self._up_since: float | None = None
        self._timer: Any = None

    def follow(self) -> None:
        """Try now if waiting, as another connection has succeeded. Any thread may call it."""
        self._post(self._follow)

    def up(self) -> None:
        """Note that the connection is open, and make the others follow."""
        self._up_since = self._clock()
        self._together.arrived(self)

    def again(self, problem: BrokerError) -> float:
        """Schedule a try after ``problem``; return in how many seconds."""
        if self._up_since is not None and self._held_long(self._up_since):
            self._backoff.reset()
        self._up_since = None
        if isinstance(problem, BrokerAccessRefused):
            seconds = current_pace().refused
        elif isinstance(problem, TooManyConnections):
            seconds = self._backoff.next(current_pace().crowded)
        else:
            seconds = self._backoff.next()
        self._together.wait(self)
        self._timer = self._loop.call_later(seconds, self._attempt_if_first)
        return seconds

    def end(self) -> None:
        """Stop trying."""
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None
        self._together.leave(self)

    def _held_long(self, since: float) -> bool:
        return self._clock() - since > current_pace().healthy

    def _follow(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._try()

    def _attempt_if_first(self) -> None:
        if self._together.leads(self):
            self._try()
        else:
            self._timer = self._loop.call_later(current_pace().longest, self._attempt_if_first)

    def _try(self) -> None:
        self._timer = None
        self._attempt()
