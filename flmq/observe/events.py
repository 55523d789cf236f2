"""What a run tells its observers: the live view, the log, the run's record.

Observers are called on the server's threads, one at a time and in order. They must not block
for long; an exception of theirs is logged and does not end the run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from flmq.common.phase import Phase
from flmq.common.typing import Parameters, Scalar
from flmq.round import Outcome

__all__ = [
    "ClientOutcome",
    "ClientPresence",
    "ClientsAwaited",
    "ConnectionChanged",
    "Note",
    "Observer",
    "Outcome",
    "Phase",
    "PhaseClosed",
    "PhaseOpened",
    "RoundClosed",
    "RoundCounts",
    "RunEnded",
    "RunEvent",
    "RunStarted",
]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """The server is in charge of its job."""

    job: str
    num_rounds: int
    strategy: str
    broker: str
    """URL without its password, or "in memory"."""
    earlier: tuple[RoundClosed, ...] = ()
    """Rounds that earlier servers of the job closed; this one goes on after them."""
    folder: str = ""
    """Where the run's files are; "": it has no journal."""


@dataclass(frozen=True, slots=True)
class ClientPresence:
    """A client came, went, or is gone."""

    client_id: str
    status: str
    """"online", "away" or "gone"."""
    reason: str
    online: int
    """Clients online now."""


@dataclass(frozen=True, slots=True)
class ClientsAwaited:
    """The server waits for clients to come; said again every few seconds."""

    needed: int
    online: int


@dataclass(frozen=True, slots=True)
class PhaseOpened:
    """Tasks of a round's phase are being published."""

    server_round: int
    phase: Phase
    asked: tuple[str, ...]
    timeout: float | None
    """Seconds until the deadline; None: there is none."""


@dataclass(frozen=True, slots=True)
class ClientOutcome:
    """What became of one client's task, said once it is known (late and duplicate: each time)."""

    server_round: int
    phase: Phase
    client_id: str
    outcome: Outcome
    reason: str = ""
    seconds: float | None = None
    """From the opening of the phase to the reply."""
    num_examples: int | None = None
    bytes_up: int = 0
    detail: str = ""
    """The end of the client's traceback, where there is one."""
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """The client's own, of a reply that was accepted."""


@dataclass(frozen=True, slots=True)
class RoundCounts:
    """How many clients got which word.

    asked = accepted + failed + rejected + silent + unroutable.
    """

    asked: int = 0
    accepted: int = 0
    failed: int = 0
    rejected: int = 0
    silent: int = 0
    unroutable: int = 0
    late: int = 0
    duplicate: int = 0
    carried: int = 0
    """Late replies of earlier rounds that count in this one."""


@dataclass(frozen=True, slots=True)
class PhaseClosed:
    """No further reply of this phase counts."""

    server_round: int
    phase: Phase
    counts: RoundCounts
    seconds: float
    bytes_down: int
    bytes_up: int
    reason: str
    """Why it closed: "all answered", "enough answered", "deadline"."""


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A round with all its phases is over."""

    server_round: int
    num_rounds: int
    fit: RoundCounts
    evaluate: RoundCounts
    loss: float | None
    """Centralized where the strategy evaluates, else the distributed weighted mean."""
    metrics: Mapping[str, Scalar]
    """Of the same origin as ``loss``."""
    seconds: float
    bytes_down: int
    bytes_up: int
    note: str = ""
    """Why the model did not change, where it did not."""
    incomplete_uploads: int = 0
    """Replies that broke off on their way here and were discarded, since the round before."""
    stray_chunks: int = 0
    """Chunks of replies that nobody waited for, since the round before."""
    fit_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """What clients measured in training, aggregated."""
    evaluate_loss: float | None = None
    """What clients measured where the server measured too; else theirs is ``loss``."""
    evaluate_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """As ``evaluate_loss``."""
    changed: bool = True
    """Whether the model is another than before the round."""


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """A connection to the broker was lost, blocked or came back."""

    role: str
    state: str
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something a person should read: one line."""

    text: str
    server_round: int | None = None


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, or this server of it."""

    job: str
    rounds: int
    seconds: float
    """Of all servers of the job: the rounds of the earlier ones, and the time of this one."""
    error: str | None = None
    final_loss: float | None = None
    final_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    parameters: Parameters | None = None
    """The final global model; None where the run failed."""
    incomplete_uploads: int = 0
    """Replies that broke off on their way here and were discarded, in all."""
    stray_chunks: int = 0
    """Chunks of replies that nobody waited for, in all."""
    stopped: bool = False
    """Whether somebody stopped it: Ctrl-C or SIGTERM; ``error`` says so too."""
    unchanged: str = ""
    """Why no round changed the model, where none did though it should have."""


RunEvent = (
    RunStarted
    | ClientPresence
    | ClientsAwaited
    | PhaseOpened
    | ClientOutcome
    | PhaseClosed
    | RoundClosed
    | ConnectionChanged
    | Note
    | RunEnded
)
Observer = Callable[[RunEvent], None]
