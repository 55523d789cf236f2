"""Events of a run for its observers (the live view, the log, its record), and events of a worker.

An observer is called with one event at a time, in order, on a thread of its own. One that blocks
delays nobody else; its exceptions are logged and do not end the run.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field

from flmq.common.phase import Phase
from flmq.common.times import TaskTimes
from flmq.common.typing import Parameters, Scalar
from flmq.round import Outcome

__all__ = [
    "BufferChanged",
    "BufferedUpdate",
    "ClientOutcome",
    "ClientPresence",
    "ClientsAwaited",
    "ConnectionChanged",
    "EventsDropped",
    "Note",
    "Observer",
    "Outcome",
    "PartialSumCame",
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
    """The server has taken charge of its job."""

    job: str
    num_rounds: int
    strategy: str
    broker: str
    """URL without its password, or "in memory"."""
    earlier: tuple[RoundClosed, ...] = ()
    """Rounds that earlier servers of the job closed; this one continues after them."""
    folder: str = ""
    """Folder of the run's files; empty if it has no journal."""
    run: str = ""
    """Tells the run from others of the same job; its tasks have it too."""


@dataclass(frozen=True, slots=True)
class ClientPresence:
    """A client's status changed: it came, went, or is gone."""

    client_id: str
    status: str
    """"online", "away" or "gone"."""
    reason: str
    online: int
    """Clients online now."""
    version: str = ""
    """The client's version of flmq; empty: not known."""


@dataclass(frozen=True, slots=True)
class ClientsAwaited:
    """The server is waiting for clients; repeated every few seconds."""

    needed: int
    online: int


@dataclass(frozen=True, slots=True)
class PhaseOpened:
    """Tasks of a round's phase are being published."""

    server_round: int
    phase: Phase
    asked: tuple[str, ...]
    timeout: float | None
    """Seconds until the deadline; None if there is none."""


@dataclass(frozen=True, slots=True)
class ClientOutcome:
    """Outcome of one client's task, emitted once it is known (late and duplicate: each time)."""

    server_round: int
    phase: Phase
    client_id: str
    outcome: Outcome
    reason: str = ""
    seconds: float | None = None
    """Seconds from the opening of the phase to the reply."""
    num_examples: int | None = None
    bytes_up: int = 0
    detail: str = ""
    """The end of the client's traceback, if any."""
    metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """The client's own metrics, if its reply was accepted."""
    task_id: str = ""
    """Id of the task, if known."""
    times: TaskTimes | None = None
    """When it was published, taken, trained, sent and counted; None: nothing is known of that."""

    @property
    def is_straggler(self) -> bool:
        """Whether it is about a late or duplicate reply to a phase of a round."""
        return self.outcome in _STRAGGLERS and self.phase in (Phase.FIT, Phase.EVALUATE)


@dataclass(frozen=True, slots=True)
class PartialSumCame:
    """A site's aggregator has added up its clients' replies; their outcomes are told besides."""

    server_round: int
    phase: Phase
    site: str
    clients: int
    """How many answers are in it."""
    accepted: int
    """How many of them count."""
    bytes_up: int = 0
    refused: str = ""
    """Why it does not count; empty if it does."""


@dataclass(frozen=True, slots=True)
class RoundCounts:
    """How many clients had which outcome in a phase.

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
    """Number of late replies of earlier rounds that count in this one."""

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
    """A phase has closed: no further reply to it counts."""

    server_round: int
    phase: Phase
    counts: RoundCounts
    seconds: float
    bytes_down: int
    bytes_up: int
    reason: str
    """Why it closed: "all answered", "enough answered", "deadline"."""


@dataclass(frozen=True, slots=True)
class BufferedUpdate:
    """A client's update in the buffer of a step of a run without rounds."""

    client_id: str
    server_round: int
    """The step before which it was asked."""
    call: int
    """Tells asks of the same step apart: `flmq.round.PhaseKey.call`."""
    staleness: int
    """Steps that the model made while the client trained."""
    weight: float
    """What it weighed; 0: it was too stale, and dropped."""


@dataclass(frozen=True, slots=True)
class BufferChanged:
    """The state of a run without rounds: an update was taken, or a client asked."""

    server_round: int
    """The step that the buffer leads to."""
    size: int
    """Updates that make a step."""
    updates: tuple[BufferedUpdate, ...]
    """Those that are there."""
    busy: tuple[str, ...]
    """Clients at work."""
    resting: tuple[str, ...]
    """Clients that failed, and are not asked for some seconds."""


@dataclass(frozen=True, slots=True)
class RoundClosed:
    """A round, with all its phases, is over."""

    server_round: int
    num_rounds: int
    fit: RoundCounts
    evaluate: RoundCounts
    loss: float | None
    """The server's loss if the strategy evaluates, else the weighted mean of the clients'."""
    metrics: Mapping[str, Scalar]
    """Metrics from the same source as ``loss``."""
    seconds: float
    bytes_down: int
    bytes_up: int
    note: str = ""
    """Why the model did not change, if it did not."""
    incomplete_uploads: int = 0
    """Number of replies discarded since the previous round, as they broke off on their way here."""
    stray_chunks: int = 0
    """Number of chunks since the previous round that belong to no awaited reply."""
    fit_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """Metrics of training, aggregated over clients."""
    evaluate_loss: float | None = None
    """The clients' loss if the server evaluates too; otherwise theirs is ``loss``."""
    evaluate_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    """The clients' metrics, as with ``evaluate_loss``."""
    changed: bool = True
    """Whether the round changed the model."""
    buffer: tuple[BufferedUpdate, ...] = ()
    """In a run without rounds: what the step was made of, in the order of taking."""
    digest: str = ""
    """Digest of the model after the round; empty if the run has no journal."""


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
    """This observer was so slow that some events were dropped."""

    counts: Mapping[str, int]
    """How many, by type name."""


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The run is over, or at least this server's part of it."""

    job: str
    rounds: int
    seconds: float
    """Summed over all servers of the job: earlier ones' rounds, and this one's time."""
    error: str | None = None
    final_loss: float | None = None
    final_metrics: Mapping[str, Scalar] = field(default_factory=dict)
    parameters: Parameters | None = None
    """The final global model; None if the run failed."""
    incomplete_uploads: int = 0
    """Total number of replies discarded, as they broke off on their way here."""
    stray_chunks: int = 0
    """Total number of chunks that belong to no awaited reply."""
    stopped: bool = False
    """Whether it was stopped by Ctrl-C or SIGTERM; ``error`` says so too."""
    unchanged: str = ""
    """Why no round changed the model, if one should have."""
    stopped_early: str = ""
    """Why the run is finished before its last round; empty if it is not."""


@dataclass(frozen=True, slots=True)
class TaskRef:
    """Identifies a task: its job, round, phase and client."""

    job: str
    server_round: int
    phase: Phase
    client_id: str
    task_id: str
    run: str = field(default="", compare=False)
    """Its job's run; empty where what came of the task does not say it."""


@dataclass(frozen=True, slots=True)
class TaskReceived:
    """A worker received a task."""

    task: TaskRef
    at: float
    """Unix seconds by the worker's clock, as in the events that follow."""
    again: bool = False
    """Whether it is a redelivery."""


@dataclass(frozen=True, slots=True)
class TrainingStarted:
    """A worker begins a task: it reads the model and calls the client."""

    task: TaskRef
    at: float


@dataclass(frozen=True, slots=True)
class TrainingEnded:
    """A worker has finished a task."""

    task: TaskRef
    at: float
    seconds: float
    num_examples: int | None = None
    error: str = ""
    """The error it failed with; empty if it succeeded."""


@dataclass(frozen=True, slots=True)
class ReplySent:
    """The broker has all of a worker's reply."""

    task: TaskRef
    at: float


@dataclass(frozen=True, slots=True)
class ReceiptCame:
    """A worker got the server's receipt for a reply."""

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
    | PartialSumCame
    | PhaseClosed
    | BufferChanged
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
