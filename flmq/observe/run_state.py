"""The current state of a run, derived from its events: what the live view draws."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from enum import Enum

from flmq.observe.events import (
    BufferChanged,
    ClientOutcome,
    ClientPresence,
    ClientsAwaited,
    ConnectionChanged,
    Outcome,
    Phase,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.remarks import BROKEN_STATES, Remark, Remarker
from flmq.observe.stragglers import Stragglers, with_straggler

__all__ = ["Board", "Cell", "Stage"]

_REMARKS = 50
"""Number of remarks kept: more than any terminal shows at once."""


class Cell(Enum):
    """What a client does in the open phase."""

    BUSY = "busy"
    ANSWERED = "answered"
    FAILED = "failed"
    SILENT = "silent"
    AWAY = "away"
    """Asked, but not connected now: it may still answer."""


_CELLS = {
    Outcome.ACCEPTED: Cell.ANSWERED,
    Outcome.FAILED: Cell.FAILED,
    Outcome.REJECTED: Cell.FAILED,
    Outcome.SILENT: Cell.SILENT,
    Outcome.UNROUTABLE: Cell.AWAY,
}

_UNHEARD = (Outcome.SILENT, Outcome.UNROUTABLE)


@dataclass(slots=True)
class Stage:
    """A phase and the progress of its clients."""

    server_round: int
    phase: Phase
    opened: float
    """Monotonic seconds."""
    deadline: float | None
    """Deadline in monotonic seconds; None if there is none."""
    cells: dict[str, Cell]
    closed: str | None = None
    """Why it closed; None while it is open."""
    closed_at: float = 0.0
    """Monotonic seconds."""

    def count(self) -> Counter[Cell]:
        """Return how many clients are in each state."""
        return Counter(self.cells.values())


@dataclass(slots=True)
class Board:
    """State of a run. Changed by ``apply`` only; the view reads it under the same lock."""

    started: RunStarted | None = None
    started_at: float = 0.0
    """Monotonic seconds."""
    stage: Stage | None = None
    buffer: BufferChanged | None = None
    """State of a run without rounds; None in one with rounds."""
    rounds: list[RoundClosed] = field(default_factory=list)
    presence: dict[str, str] = field(default_factory=dict)
    """Status of each client ever seen."""
    online: int = 0
    connections: dict[str, str] = field(default_factory=dict)
    """State of each connection to the broker that has a problem."""
    remarks: deque[tuple[float, Remark]] = field(default_factory=lambda: deque(maxlen=_REMARKS))
    """Remarks with the seconds since the start."""
    awaited: int | None = None
    """How many clients must be online before the next phase; None if it does not wait."""
    ended: RunEnded | None = None
    _unheard: tuple[str, tuple[str, ...]] | None = None
    """Subject and clients of the last remark, while it may still be extended."""
    _remark_on: Remarker = field(default_factory=Remarker)
    _stragglers: Stragglers = field(default_factory=Stragglers)

    def apply(self, event: RunEvent, now: float) -> None:
        """Process ``event``, which came at ``now`` (monotonic seconds)."""
        match event:
            case RunStarted():
                self.started, self.started_at = event, now
                self.rounds.extend(event.earlier)
            case BufferChanged():
                self._show_buffer(event, now)
            case PhaseOpened() | PhaseClosed() if self.buffer and event.phase is Phase.FIT:
                pass  # one ask of a stream: the buffer says who is busy
            case PhaseOpened():
                self._open(event, now)
            case ClientOutcome():
                self._mark(event)
            case PhaseClosed():
                if self.stage is not None:
                    self.stage.closed, self.stage.closed_at = event.reason, now
            case RoundClosed():
                self.rounds.append(self._stragglers.counted(event))
            case ClientsAwaited():
                # The previous phase is over: the next one begins when the clients are online.
                self.stage, self.awaited = None, event.needed
                self.online = event.online
            case ClientPresence():
                self._meet(event)
            case ConnectionChanged():
                self._connect(event)
            case RunEnded():
                self.ended = event
        self._remark(event, now)

    def _open(self, event: PhaseOpened, now: float) -> None:
        self.awaited = None
        away = {name for name, status in self.presence.items() if status != "online"}
        self.stage = Stage(
            event.server_round,
            event.phase,
            now,
            None if event.timeout is None else now + event.timeout,
            {name: Cell.AWAY if name in away else Cell.BUSY for name in sorted(event.asked)},
        )

    def _show_buffer(self, event: BufferChanged, now: float) -> None:
        """Show who is busy and who rests; a step is as old as its first state."""
        before, self.buffer, self.awaited = self.stage, event, None
        same = before is not None and (before.server_round, before.phase) == (
            event.server_round,
            Phase.FIT,
        )
        cells = dict.fromkeys(event.resting, Cell.FAILED)
        for name in event.busy:
            is_away = self.presence.get(name, "online") != "online"
            cells[name] = Cell.AWAY if is_away else Cell.BUSY
        opened = before.opened if before is not None and same else now
        ordered = dict(sorted(cells.items()))
        self.stage = Stage(event.server_round, Phase.FIT, opened, None, ordered)

    def _mark(self, event: ClientOutcome) -> None:
        if event.is_straggler:
            self._count_straggler(event)
            return
        stage, cell = self.stage, _CELLS.get(event.outcome)
        if stage is None or cell is None or event.client_id not in stage.cells:
            return
        if (stage.server_round, stage.phase) == (event.server_round, event.phase):
            stage.cells[event.client_id] = cell

    def _count_straggler(self, event: ClientOutcome) -> None:
        """Count a late or duplicate reply in the round that asked for it."""
        for position in reversed(range(len(self.rounds))):
            if self.rounds[position].server_round == event.server_round:
                self.rounds[position] = with_straggler(self.rounds[position], event)
                return
        self._stragglers.hear(event)

    def _meet(self, event: ClientPresence) -> None:
        self.presence[event.client_id] = event.status
        self.online = event.online
        if self.stage is None or self.stage.closed is not None:
            return
        cell = self.stage.cells.get(event.client_id)
        if cell in (Cell.BUSY, Cell.AWAY):
            is_online = event.status == "online"
            self.stage.cells[event.client_id] = Cell.BUSY if is_online else Cell.AWAY

    def _connect(self, event: ConnectionChanged) -> None:
        if event.state in BROKEN_STATES:
            self.connections[event.role] = event.state
        else:
            self.connections.pop(event.role, None)

    def _remark(self, event: RunEvent, now: float) -> None:
        # It is no news that clients come before the first round; the header counts them.
        if isinstance(event, ClientPresence) and event.status == "online" and self.stage is None:
            return
        remark = self._folded(event) or self._remark_on(event)
        if remark is not None:
            self.remarks.append((now - self.started_at if self.started else 0.0, remark))

    def _folded(self, event: RunEvent) -> Remark | None:
        """Merge the remarks on all clients of a phase that did not answer into one."""
        if not isinstance(event, ClientOutcome) or event.outcome not in _UNHEARD:
            self._unheard = None
            return None
        what = f"{event.outcome.value} in {event.phase.value} of round {event.server_round}"
        before, self._unheard = self._unheard, (what, (event.client_id,))
        if before is None or before[0] != what:
            return None
        self.remarks.pop()
        names = (*before[1], event.client_id)
        self._unheard = (what, names)
        text = f"{len(names)} clients {what}: {', '.join(names)}"
        return Remark("client", text, good=False, server_round=event.server_round)
