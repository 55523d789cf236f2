"""Report one connection's changes of state, and which of its users the broker holds back."""

from __future__ import annotations

import itertools
from typing import Any

from flmq.common.logger import get_logger
from flmq.transport.base import ConnectionEvent, ConnectionState, StateListener

__all__ = ["StateReports"]

_log = get_logger(__name__)

_numbers = itertools.count(1)


class StateReports:
    """Report on one connection to a listener. For the connection's thread only."""

    def __init__(self, role: str, listener: StateListener | None) -> None:
        """Report to ``listener`` (None: to nobody) on the connection in the given ``role``."""
        self._role = role
        self._number = next(_numbers)
        self._listener = listener
        self._told = False
        self._held: set[object] = set()
        """The users that the broker holds back."""

    def tell(self, state: ConnectionState, detail: str = "") -> None:
        """Report a state to the listener."""
        if self._listener is None:
            return
        self._told = True
        try:
            self._listener(ConnectionEvent(self._role, state, detail, self._number))
        except BaseException:  # a listener's bug must not end the connection
            _log.exception("the listener of the %s connection failed", self._role)

    def up(self, connection: Any) -> None:
        """Report that pika's ``connection`` is open, and later whether it is blocked."""
        connection.add_on_connection_blocked_callback(self._on_blocked)
        connection.add_on_connection_unblocked_callback(self._on_unblocked)
        self.tell(ConnectionState.CONNECTED)

    def ended(self) -> None:
        """Report that there is no such connection any more, if anybody was told that there is."""
        if self._told:
            self.tell(ConnectionState.CLOSED)

    def down(self) -> None:
        """Forget which users were held back: the connection is gone."""
        self._held.clear()

    def hold(self, who: object, reason: str) -> None:
        """Report that the broker holds ``who`` back for ``reason``; ``who`` keeps trying."""
        self._held.add(who)
        self.tell(ConnectionState.BLOCKED, reason)

    def release(self, who: object) -> None:
        """Report that ``who`` is no longer held back, if it was."""
        if who in self._held:
            self._held.discard(who)
            if not self._held:
                self.tell(ConnectionState.CONNECTED, "no longer held back")

    def _on_blocked(self, _: Any, frame: Any) -> None:
        reason = frame.method.reason
        self.tell(ConnectionState.BLOCKED, f"RabbitMQ holds publishers back: {reason}")

    def _on_unblocked(self, *_: Any) -> None:
        self.tell(ConnectionState.CONNECTED, "no longer blocked")
