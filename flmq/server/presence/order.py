"""Refuse presence that is said again: where it is signed, others can repeat it, and not make it.

A process counts from the hello with which it answers this server's own greeting, and from then on
what it says must be newer than all it said before. Once another process of the client has answered
its greeting, the earlier one counts no more. Clocks of two processes are not compared.
"""

from __future__ import annotations

from collections import OrderedDict

from flmq.wire import Presence

__all__ = ["PresenceOrder"]

_PROCESSES = 16
"""Processes of one client that are remembered."""


class PresenceOrder:
    """What was heard last of each process, by client. Not thread-safe; grows with the clients."""

    def __init__(self) -> None:
        """Have heard nobody yet."""
        self._said: dict[str, OrderedDict[str, int]] = {}
        """By client: its processes, the present one last, and the time of what each said last."""

    def problem(self, presence: Presence, *, answers: bool) -> str:
        """Return why this is no news, to go on a sentence about clients; empty if it is.

        ``answers``: whether it answers the greeting of its process.
        """
        processes = self._said.setdefault(presence.client_id, OrderedDict())
        said = processes.get(presence.instance)
        if said is None:
            if answers:
                self._enter(processes, presence)
            return ""
        if next(reversed(processes)) != presence.instance:
            return "were followed by another process of the same id, and are repeated by somebody"
        if presence.sent_unix_ms <= said:
            return "said it before: it came twice, or is repeated by somebody"
        processes[presence.instance] = presence.sent_unix_ms
        return ""

    def _enter(self, processes: OrderedDict[str, int], presence: Presence) -> None:
        processes[presence.instance] = presence.sent_unix_ms
        if len(processes) > _PROCESSES:
            processes.popitem(last=False)
