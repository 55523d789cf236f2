"""What is noteworthy of a run beside the figures of its rounds: a line for each such event."""

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
"""States of a connection in which it does not serve. "closed" is its owner's wish."""


@dataclass(frozen=True, slots=True)
class Remark:
    """One line about something noteworthy."""

    kind: str
    """What it is about, the word that its plain line begins with: client, broker, note."""
    text: str
    good: bool
    """False: something went wrong."""
    server_round: int | None = None


def remark_on(event: RunEvent) -> Remark | None:
    """The line that ``event`` deserves beside the line of its round; None: none."""
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
    """``remark_on`` with a memory: that a connection is up is news only after it was not."""

    def __init__(self) -> None:
        """Begin with all connections as they should be."""
        self._broken: set[str] = set()

    def __call__(self, event: RunEvent) -> Remark | None:
        """The line that ``event`` deserves after all those before it; None: none."""
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
    """Events by kind, as in ``3 ClientOutcome, 1 Note``."""
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def waiting_for(event: ClientsAwaited) -> str:
    """Whom the server waits for."""
    return f"waiting for clients: {event.online} of {event.needed} are here"


def _reason(reason: str) -> str:
    return f": {one_line(reason)}" if reason else ""
