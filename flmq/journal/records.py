"""What the journal holds, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from flmq.common.phase import Phase
from flmq.common.typing import Parameters, Scalar
from flmq.journal.state import StateValue
from flmq.round import LateReplyRef, Outcome, PhaseKey, Policy, TaskOutcome
from flmq.wire import BlobRef

__all__ = [
    "UNJUDGED",
    "CarriedReply",
    "Checkpoint",
    "CheckpointInfo",
    "ClosedPhase",
    "Contribution",
    "JobIdentity",
    "KeepPolicy",
    "LateEntry",
    "LateReply",
    "PhaseKey",
    "PhaseRecord",
    "PhaseRow",
    "Plan",
    "PlannedAsk",
    "RoundRow",
    "RunInfo",
    "RunState",
]


UNJUDGED = "not judged yet"
"""Reason of an accepted contribution that came before its phase was opened again."""


@dataclass(frozen=True, slots=True)
class JobIdentity:
    """What stays the same over all starts of a job's server."""

    name: str
    run_id: str
    """Tells this run from an earlier one of the same name."""
    secret: bytes = field(repr=False)
    """Key of the tasks' nonces."""
    seed: int
    """Of the choice of clients."""


@dataclass(frozen=True, slots=True)
class PlannedAsk:
    """Whom to ask, and what."""

    client_id: str
    task_id: str
    task: bytes
    """The `flmq.wire.Task`, encoded; its ``ins`` lacks the parameters that ``model`` names."""
    model: str | None = None
    """Digest of its parameters, put beforehand (`Journal.put_parameters`); None: in ``task``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a phase is going to do."""

    asks: tuple[PlannedAsk, ...]
    timeout: float | None
    """Seconds that the phase may be open under a server in charge; None: no limit."""
    policy: Policy
    state: Mapping[str, StateValue] = field(default_factory=dict)
    """The strategy's, as ``configure_fit`` or ``configure_evaluate`` left it."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one client answered in a phase."""

    client_id: str
    task_id: str
    kind: Outcome
    """ACCEPTED, FAILED or REJECTED; LATE: of a reply that is kept for a later round."""
    reason: str = ""
    detail: str = ""
    """The tail of a traceback, for instance."""
    reply: bytes = b""
    """The `flmq.wire.Reply`, encoded; without the parameters that ``blob`` names."""
    blob: BlobRef | None = None
    """Its parameters, adopted beforehand (`Journal.adopt_reply`); None: in ``reply``."""
    size: int = 0
    """Bytes that came for it."""


@dataclass(frozen=True, slots=True)
class ClosedPhase:
    """How a phase ended. The closing set is final: whatever is aggregated is a function of it."""

    reason: str
    accepted: tuple[str, ...]
    """Clients whose reply counts, in client-id order."""
    outcomes: tuple[TaskOutcome, ...]
    seconds: float
    bytes_down: int = 0
    bytes_up: int = 0
    carried: tuple[LateReplyRef, ...] = ()
    """Late replies of earlier rounds that count in this one: part of the closing set."""


@dataclass(frozen=True, slots=True)
class LateEntry:
    """A reply that came when its phase had closed, or after another one, to be entered."""

    key: PhaseKey
    client_id: str
    outcome: Outcome
    """LATE or DUPLICATE."""
    seconds: float
    """How long after the phase had closed; 0: it was open."""
    note: str = ""
    """What else there is to say of it: that it was expired, or why it was rejected."""
    kept: Contribution | None = None
    """The reply itself, where it is to count in a later round."""


@dataclass(frozen=True, slots=True)
class CarriedReply:
    """A late reply that is kept because it counts in a later round."""

    key: PhaseKey
    """The phase that had asked for it."""
    seconds: float
    """How late it was."""
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """A phase as far as it has come."""

    key: PhaseKey
    plan: Plan
    elapsed: float
    """Seconds that it has been open under a server in charge, to the last `Journal.tick`."""
    contributions: tuple[Contribution, ...]
    """In the order of their arrival."""
    closed: ClosedPhase | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a round: all that its continuation depends on."""

    server_round: int
    parameters: Parameters
    """On disk, mapped when looked at."""
    history: dict[str, Any]
    state: dict[str, Any]
    """The strategy's."""
    summary: dict[str, Any]


@dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """A model that is kept."""

    server_round: int
    digest: str
    path: Path
    bytes: int
    at_unix_ms: int
    """By the server's clock."""
    summary: dict[str, Any]
    kept_as: tuple[str, ...]
    """Of ``last``, ``best`` and ``every``, what it is kept as."""


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """Which models stay on disk besides the last, which always does, and whether replies do."""

    best: str | None = None
    """``"loss"``: the model with the least; another name: the greatest metric of that name. What
    counts is the checkpoint's summary: its ``loss``, or its ``metrics``. The first of equals."""
    every: int | None = None
    """Every k-th round's model."""
    replies: str = "round"
    """``"round"``: plans and replies go when their round has its checkpoint; ``"all"``: stay."""

    def __post_init__(self) -> None:
        """Refuse what makes no sense."""
        if self.every is not None and self.every < 1:
            raise ValueError(f"every is {self.every}: give 1 or more rounds, or None")
        if self.replies not in ("round", "all"):
            raise ValueError(f'replies is {self.replies!r}: give "round" or "all"')


@dataclass(frozen=True, slots=True)
class LateReply:
    """A reply that came too late for its phase, or after another one."""

    client_id: str
    outcome: Outcome
    """LATE or DUPLICATE."""
    seconds: float
    """How late: of a late reply, and of the last duplicate; 0: the phase was open."""
    times: int
    note: str = ""
    """What else there is to say of it."""
    into: int | None = None
    """The later round that it counts in; None: none."""
    waits: bool = False
    """Whether it is kept for a later round that has not closed yet."""


@dataclass(frozen=True, slots=True)
class PhaseRow:
    """A phase, for people to read."""

    phase: Phase
    call: int
    asked: int
    opened_unix_ms: int
    """By the server's clock."""
    open: bool
    reason: str
    """Why it closed."""
    outcomes: tuple[TaskOutcome, ...]
    """Of an open phase: those that are in already."""
    seconds: float
    bytes_down: int
    bytes_up: int
    late: tuple[LateReply, ...]
    carried: int = 0
    """Late replies of earlier rounds that count in it."""


@dataclass(frozen=True, slots=True)
class RoundRow:
    """A round, for people to read."""

    server_round: int
    phases: tuple[PhaseRow, ...]
    """In the order in which they were opened."""
    done: bool
    """Whether it has its checkpoint."""
    loss: float | None
    metrics: dict[str, Scalar]
    seconds: float | None
    summary: dict[str, Any]
    """All that its checkpoint says."""


class RunState(Enum):
    """How a run stands."""

    RUNNING = "running"
    """A live process is in charge of it."""
    UNFINISHED = "unfinished"
    """Nobody is; starting its server goes on with it."""
    FINISHED = "finished"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A run's folder, at a glance."""

    folder: Path
    job: str
    run_id: str
    state: RunState
    rounds: int
    """That have their checkpoint."""
    started_unix_ms: int | None
    about: dict[str, Any] = field(default_factory=dict)
    ending: dict[str, Any] | None = None
    problem: str = ""
    """What is wrong with a damaged one."""
