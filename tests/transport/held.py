"""A connection whose thread is the test's, and whose timers fire when it says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flmq.common.urls import parse_broker_url
from flmq.transport.rabbitmq.states import StateReports

__all__ = ["HeldConnection"]


class HeldConnection:
    """Counts the channels that are opened; what is to happen later waits in ``timers``."""

    url = parse_broker_url("amqp://guest:guest@nowhere/")
    is_open = True

    def __init__(self, role: str) -> None:
        """Report its states as ``role``."""
        self.states = StateReports(role, None)
        self.timers: list[Callable[[], None]] = []
        self.opened = 0

    def attach(self, _: object) -> None:
        """Call nobody back."""

    def post(self, action: Callable[[], None]) -> None:
        """Do it at once."""
        action()

    def call_later(self, _: float, action: Callable[[], None]) -> None:
        """Let it wait."""
        self.timers.append(action)

    def channel(self, on_open_callback: Callable[[Any], None]) -> None:
        """Count it."""
        self.opened += 1

    def fire(self) -> None:
        """Let everything happen that is due."""
        timers, self.timers = self.timers, []
        for action in timers:
            action()
