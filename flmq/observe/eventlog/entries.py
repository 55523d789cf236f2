"""What of a run's events the event log keeps, as rows. Pure.

What a journal has, rounds and what became of each ask, is not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flmq.common.cleaning import one_line
from flmq.observe.events import (
    ClientPresence,
    ClientsAwaited,
    ConnectionChanged,
    EventsDropped,
    Note,
    RunEvent,
)
from flmq.observe.record import KILLED
from flmq.observe.remarks import counted

__all__ = ["KEPT", "Entry", "Kind", "entry_of"]

KEPT = (ClientPresence, ClientsAwaited, ConnectionChanged, Note, EventsDropped)
"""Events of which something is kept."""

_LONGEST = 4096
"""Characters of a text that are kept: a peer may have written it."""


class Kind:
    """Kinds of entries."""

    PRESENCE = "presence"
    AWAITED = "awaited"
    CONNECTION = "connection"
    KILL = "kill"
    NOTE = "note"
    DROPPED = "dropped"
    LOG = "log"


@dataclass(frozen=True, slots=True)
class Entry:
    """Something that happened."""

    kind: str
    text: str
    word: str = ""
    """Status of a client, state of a connection, level of a log line."""
    who: str = ""
    """The client, or the connection's role."""
    server_round: int | None = None
    numbers: Mapping[str, int | str] = field(default_factory=dict)


def entry_of(event: RunEvent) -> Entry | None:
    """Return what is kept of ``event``; None if nothing is."""
    match event:
        case ClientPresence():
            numbers: dict[str, int | str] = {"online": event.online, "version": event.version}
            reason = one_line(event.reason, _LONGEST)
            return Entry(Kind.PRESENCE, reason, event.status, event.client_id, numbers=numbers)
        case ClientsAwaited():
            numbers = {"needed": event.needed, "online": event.online}
            return Entry(Kind.AWAITED, "", numbers=numbers)
        case ConnectionChanged():
            detail = one_line(event.detail, _LONGEST)
            return Entry(Kind.CONNECTION, detail, event.state, event.role)
        case Note():
            text = one_line(event.text, _LONGEST)
            kind = Kind.KILL if text.startswith(KILLED) else Kind.NOTE
            return Entry(kind, text, server_round=event.server_round)
        case EventsDropped():
            return Entry(Kind.DROPPED, f"not told here: {counted(event.counts)}")
        case _:
            return None
