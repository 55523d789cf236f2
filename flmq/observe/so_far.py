"""A summary of a run so far, in as few events as a new observer needs."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from itertools import count

from flmq.observe.events import (
    ClientOutcome,
    ClientsAwaited,
    ConnectionChanged,
    Note,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.mailbox import state_of
from flmq.observe.stragglers import Stragglers, with_straggler

__all__ = ["RunSoFar"]

_MOST_NOTES = 1000
_AWAITED = state_of(ClientsAwaited(0, 0))


class RunSoFar:
    """Keep how past rounds closed, and the latest state of clients and connections.

    All details of the open round are kept; those of the others are in the journal.
    """

    def __init__(self) -> None:
        """Start before the run does."""
        self._started: RunStarted | None = None
        self._states: dict[Hashable, RunEvent] = {}
        self._closed: dict[int, RoundClosed] = {}
        self._open: dict[Hashable, RunEvent] = {}
        """Events of the open round, and the last notes."""
        self._ended: RunEnded | None = None
        self._number = count()
        self._stragglers = Stragglers()

    @property
    def folder(self) -> str:
        """Folder of the run's journal; empty if it has none."""
        return "" if self._started is None else self._started.folder

    def __iter__(self) -> Iterator[RunEvent]:
        """Yield the current state, the past rounds, and the events of the open round."""
        if self._started is not None:
            yield self._started
        yield from self._states.values()
        yield from self._closed.values()
        yield from self._open.values()
        if self._ended is not None:
            yield self._ended

    def add(self, event: RunEvent) -> None:
        """Add the newest event."""
        match event:
            case RunStarted():
                self._started = event
            case RunEnded():
                self._ended = event
            case RoundClosed():
                self._close(event)
            case ClientOutcome() if event.is_straggler:
                self._add_straggler(event)
            case ConnectionChanged():
                self._states["connection", event.role] = event
            case Note():
                _renew(self._open, ("note", next(self._number) % _MOST_NOTES), event)
            case _ if (state := state_of(event)) is not None:
                self._states[state] = event
            case _:
                if isinstance(event, PhaseOpened):
                    self._states.pop(_AWAITED, None)  # the clients have come
                self._open[next(self._number)] = event

    def _close(self, closed: RoundClosed) -> None:
        number = closed.server_round
        self._closed[number] = self._stragglers.counted(closed)
        self._open = {key: each for key, each in self._open.items() if not _is_of(each, number)}

    def _add_straggler(self, event: ClientOutcome) -> None:
        """Count a late or duplicate reply in its round, once that has closed."""
        closed = self._closed.get(event.server_round)
        if closed is not None:
            self._closed[event.server_round] = with_straggler(closed, event)
        else:
            self._stragglers.hear(event)
            _renew(self._open, (event.phase, event.client_id, event.outcome), event)


def _renew(kept: dict[Hashable, RunEvent], key: Hashable, event: RunEvent) -> None:
    kept.pop(key, None)
    kept[key] = event


def _is_of(event: RunEvent, up_to: int) -> bool:
    """Return whether it is about a client or a phase in a round up to this one."""
    match event:
        case PhaseOpened() | PhaseClosed() | ClientOutcome():
            return event.server_round <= up_to
    return False
