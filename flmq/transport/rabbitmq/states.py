"""What a listener hears of one connection: its changes of state, and who on it is held back."""

from __future__ import annotations

import itertools
import logging
from typing import Any

from flmq.transport.base import ConnectionEvent, ConnectionState, StateListener

__all__ = ["StateReports"]

_log = logging.getLogger(__name__)

_numbers = itertools.count(1)


class StateReports:
    """Tells a listener of one connection. For the connection's thread alone."""

    def __init__(self, role: str, listener: StateListener | None) -> None:
        """Tell ``listener`` (None: nobody) of the connection that is a ``role``."""
        self._role = role
        self._number = next(_numbers)
        self._listener = listener
        self._held: set[object] = set()
        """Those whom the broker holds back."""

    def tell(self, state: ConnectionState, detail: str = "") -> None:
        """Tell the listener."""
        if self._listener is None:
            return
        try:
            self._listener(ConnectionEvent(self._role, state, detail, self._number))
        except BaseException:  # a listener's mistake must not cost the connection
            _log.exception("the listener of the %s connection failed", self._role)

    def up(self, connection: Any) -> None:
        """Tell that pika's ``connection`` is open, and later whether it is blocked."""
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self.tell(ConnectionState.CONNECTED)

    def down(self) -> None:
        """Forget who was held back: the connection is gone."""
        self._held.clear()

    def hold(self, who: object, reason: str) -> None:
        """Tell that the broker lets ``who`` do nothing at the moment; it goes on trying."""
        self._held.add(who)
        self.tell(ConnectionState.BLOCKED, reason)

    def release(self, who: object) -> None:
        """Tell that it does again, if it did not."""
        if who in self._held:
            self._held.discard(who)
            if not self._held:
                self.tell(ConnectionState.CONNECTED, "no longer held back")

    def _on_blocked(self, _: Any, frame: Any) -> None:
        reason = frame.method.reason
        self.tell(ConnectionState.BLOCKED, f"RabbitMQ holds publishers back: {reason}")

    def _on_unblocked(self, *_: Any) -> None:
        self.tell(ConnectionState.CONNECTED, "no longer blocked")
