"""Noteworthy events of a run besides the figures of its rounds: one line for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flmq.common.cleaning import one_line
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    ClientsAwaited,
    ConnectionChanged,
    EventsDropped,
    Note,
    Outcome,
    RoundClosed,
    RunEvent,
)

__all__ = ["BROKEN_STATES", "Remark", "Remarker", "counted", "remark_on", "waiting_for"]

BROKEN_STATES = ("lost", "blocked")
"""States in which a connection is not usable. "closed" is not one: its owner asked for it."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One line about something noteworthy."""

    kind: str
    """The subject, with which its plain line begins: client, broker, note."""
    text: str
    good: bool
    """False if something went wrong."""
    server_round: int | None = None


def remark_on(event: RunEvent) -> Remark | None:
    """Return the remark on ``event`` besides its round's line; None if there is none."""
    match event:
        case ClientOutcome() if event.outcome is not Outcome.ACCEPTED:
            what = f"{event.outcome.value} in {event.phase.value} of round {event.server_round}"
            text = f"{event.client_id} {what}{_reason(event.reason)}"
            return Remark("client", text, good=False, server_round=event.server_round)
        case ClientPresence():
            text = f"{event.client_id} {event.status}{_reason(event.reason)}"
            good = event.status == "online"
            return Remark("client", f"{text} ({event.online} online)", good=good)
        case ConnectionChanged():
            what = f"connection {event.role}".rstrip()
            text = f"{what} {event.state}{_reason(event.detail)}"
            return Remark("broker", text, good=event.state not in BROKEN_STATES)
        case Note():
            return Remark("note", one_line(event.text), True, event.server_round)
        case EventsDropped():
            text = f"too slow to be told {counted(event.counts)}: left out here"
            return Remark("note", text, good=False)
        case RoundClosed() if event.note or event.incomplete_uploads:
            parts = [one_line(event.note)] if event.note else []
            if event.incomplete_uploads:
                parts.append(f"{event.incomplete_uploads} incomplete uploads were discarded")
            text = f"round {event.server_round}: {'; '.join(parts)}"
            return Remark("note", text, good=False, server_round=event.server_round)
        case _:
            return None


class Remarker:
    """``remark_on`` with a memory: "connected" is news only after a problem."""

    def __init__(self) -> None:
        """Start with all connections assumed to be fine."""
        self._broken: set[str] = set()

    def __call__(self, event: RunEvent) -> Remark | None:
        """Return the remark on ``event``, given those before it; None if there is none."""
        if isinstance(event, ConnectionChanged):
            was_broken = event.role in self._broken
            if event.state in BROKEN_STATES:
                self._broken.add(event.role)
            elif not was_broken:
                return None
            else:
                self._broken.discard(event.role)
        return remark_on(event)


def counted(counts: Mapping[str, int]) -> str:
    """Return events by kind as text, such as ``3 ClientOutcome, 1 Note``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def waiting_for(event: ClientsAwaited) -> str:
    """Return text on which clients the server waits for."""
    return f"waiting for clients: {event.online} of {event.needed} are here"


def _reason(reason: str) -> str:
    return f": {one_line(reason)}" if reason else ""
