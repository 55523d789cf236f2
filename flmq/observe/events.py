"""What a run tells its observers (the live view, the log, its record), and what a worker does.

An observer is called with one event at a time, in order, on a thread of its own. One that blocks
holds up nobody; an exception of its is logged and does not end the run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field

from flmq.common.phase import Phase
from flmq.common.typing import Parameters, Scalar
from flmq.round import Outcome

__all__ = [
    "ClientOutcome",
    "ClientPresence",
    "ClientsAwaited",
    "ConnectionChanged",
    "EventsDropped",
    "Note",
    "Observer",
    "Outcome",
    "Phase",
    "PhaseClosed",
    "PhaseOpened",
    "ReceiptCame",
    "ReplySent",
    "RoundClosed",
    "RoundCounts",
    "RunEnded",
    "RunEvent",
    "RunStarted",
    "TaskReceived",
    "TaskRef",
    "TrainingEnded",
    "TrainingStarted",
    "WorkerEvent",
    "WorkerObserver",
]


_STRAGGLERS = (Outcome.LATE, Outcome.DUPLICATE)


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
    task_id: str = ""
    """Of the task, where it is known."""

    @property
    def is_straggler(self) -> bool:
        """Whether it is about a reply that came late or again, to a phase of a round."""
        return self.outcome in _STRAGGLERS and self.phase in (Phase.FIT, Phase.EVALUATE)


@dataclass(frozen=True, slots=True)
class RoundCounts:
    """How many clients had which outcome.

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

    @classmethod
    def of(cls, outcomes: Mapping[Outcome, int], *, asked: int, carried: int) -> RoundCounts:
        """Count ``outcomes``, of ``asked`` tasks and of the replies that came late or again."""
        counts = {each.value: outcomes.get(each, 0) for each in Outcome}
        return cls(asked, carried=carried, **counts)

    def __add__(self, other: RoundCounts) -> RoundCounts:
        """Both together."""
        return RoundCounts(*map(operator.add, astuple(self), astuple(other)))


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
class EventsDropped:
    """This observer was so slow that it was not told some events."""

    counts: Mapping[str, int]
    """How many, by the name of their type."""


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


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Which task: of which job, round, phase and client."""

    job: str
    server_round: int
    phase: Phase
    client_id: str
    task_id: str


@dataclass(frozen=True, slots=True)
class TaskReceived:
    """A task came to a worker."""

    task: TaskRef
    at: float
    """Unix seconds by the worker's clock, as in the events that follow."""
    again: bool = False
    """Whether the broker delivered it before."""


@dataclass(frozen=True, slots=True)
class TrainingStarted:
    """A worker begins to do a task: it reads the model and calls the client."""

    task: TaskRef
    at: float


@dataclass(frozen=True, slots=True)
class TrainingEnded:
    """A worker has done a task."""

    task: TaskRef
    at: float
    seconds: float
    num_examples: int | None = None
    error: str = ""
    """What it failed with; "": it did not."""


@dataclass(frozen=True, slots=True)
class ReplySent:
    """The broker has all of a worker's reply."""

    task: TaskRef
    at: float


@dataclass(frozen=True, slots=True)
class ReceiptCame:
    """The server told a worker what became of its reply."""

    task: TaskRef
    at: float
    outcome: str
    """"accepted", "rejected", "late" or "duplicate"."""
    reason: str = ""


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
    | EventsDropped
    | RunEnded
)
Observer = Callable[[RunEvent], None]

WorkerEvent = (
    TaskReceived
    | TrainingStarted
    | TrainingEnded
    | ReplySent
    | ReceiptCame
    | ConnectionChanged
    | EventsDropped
)
WorkerObserver = Callable[[WorkerEvent], None]
