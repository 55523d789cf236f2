"""Report an outage in few words: the broker is lost, it is back, and one line a minute in between.

A process has several connections, and each retries again and again: reported one by one, that is
some twenty lines an outage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from flmq.transport.base import ConnectionEvent, ConnectionState, StateListener

__all__ = ["OutageReporter"]

_AGAIN_EVERY = 60.0

_Key = tuple[str, int]


class OutageReporter:
    """A listener that reports all of a transport's connections as one. Thread-safe.

    Its events have no role. A lost connection outweighs a blocked one.
    """

    def __init__(
        self, listener: StateListener, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Report to ``listener``; ``clock`` is monotonic, in seconds."""
        self._listener = listener
        self._clock = clock
        self._lock = threading.Lock()
        self._states: dict[_Key, ConnectionState] = {}
        """Of each connection that is not closed."""
        self._ending = False
        """Whether the transport is being closed."""
        self._told: ConnectionState | None = None
        self._since = 0.0
        self._said_at = 0.0

    def __call__(self, event: ConnectionEvent) -> None:
        """Take an event of one connection; report it if it is news for all."""
        with self._lock:
            detail = self._news(event)
            if detail is not None and self._told is not None:
                self._listener(ConnectionEvent("", self._told, detail))

    def _news(self, event: ConnectionEvent) -> str | None:
        now, before, key = self._clock(), self._told, (event.role, event.number)
        troubled = event.state in (ConnectionState.LOST, ConnectionState.BLOCKED)
        if event.state is ConnectionState.CLOSED:
            self._ending = self._ending or event.role == "control"
            self._states.pop(key, None)
        else:
            self._states[key] = event.state
        self._told = self._whole()
        if self._told is not before:
            was_well = before not in (ConnectionState.LOST, ConnectionState.BLOCKED)
            lasted = now - self._since
            self._since = now if was_well else self._since
            self._said_at = now
            if self._told is ConnectionState.CONNECTED and not was_well:
                return f"again after {lasted:.0f} s"
            return event.detail
        if troubled and event.state is self._told and now - self._said_at >= _AGAIN_EVERY:
            self._said_at = now
            return f"for {now - self._since:.0f} s now: {event.detail}"
        return None

    def _whole(self) -> ConnectionState:
        """Return the state of all connections: the worst of them."""
        for state in (ConnectionState.LOST, ConnectionState.BLOCKED):
            if state in self._states.values():
                return state
        over = self._ending or not self._states
        return ConnectionState.CLOSED if over else ConnectionState.CONNECTED
