"""The journal's records, as dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from flmq.common.phase import Phase
from flmq.common.times import TaskTimes
from flmq.common.typing import Parameters, Scalar
from flmq.journal.parts import Part
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
    "Part",
    "PhaseKey",
    "PhaseRecord",
    "PhaseRow",
    "Plan",
    "PlannedAsk",
    "RecordedSum",
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
    """Distinguishes this run from an earlier one of the same name."""
    secret: bytes = field(repr=False)
    """Secret key of the tasks' nonces."""
    seed: int
    """Seed of the choice of clients."""


@dataclass(frozen=True, slots=True)
class PlannedAsk:
    """Which client to ask, and what."""

    client_id: str
    task_id: str
    task: bytes
    """The encoded `flmq.wire.Task`, without the parameters that ``model`` names."""
    model: str | None = None
    """Digest of its parameters, put before (`Journal.put_parameters`); None if in ``task``."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a phase is going to do."""

    asks: tuple[PlannedAsk, ...]
    timeout: float | None
    """Seconds that the phase may be open under a server in charge; None for no limit."""
    policy: Policy
    state: Mapping[str, StateValue] = field(default_factory=dict)
    """The strategy's state after ``configure_fit`` or ``configure_evaluate``."""
    orders: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Sites whose aggregators add up replies, and the sites whose clients' replies each takes."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """A client's answer in a phase."""

    client_id: str
    task_id: str
    kind: Outcome
    """ACCEPTED, FAILED or REJECTED; LATE for a reply that is kept for a later round."""
    reason: str = ""
    detail: str = ""
    """More detail, such as the tail of a traceback."""
    reply: bytes = b""
    """The encoded `flmq.wire.Reply`, without the parameters that ``blob`` names."""
    blob: BlobRef | None = None
    """Its parameters, adopted before (`Journal.adopt_reply`); None if in ``reply``."""
    size: int = 0
    """Bytes received for it."""
    order_id: str = ""
    """Task id of the order whose partial sum it is in; empty: it came by itself."""
    times: TaskTimes | None = None
    """When it was asked for, came and counted; of the worker's times, the reply's are stored."""


@dataclass(frozen=True, slots=True)
class RecordedSum:
    """A partial sum; its answers are contributions that name it."""

    order_id: str
    """Task id of the order that it answers."""
    blob: BlobRef
    """The accumulator's bytes and the entries, adopted before (`Journal.adopt_reply`)."""
    size: int = 0
    """Bytes received for it."""


@dataclass(frozen=True, slots=True)
class ClosedPhase:
    """How a phase ended. The closing set is final: the aggregate is a function of it alone."""

    reason: str
    accepted: tuple[str, ...]
    """Clients whose reply counts, in client-id order."""
    outcomes: tuple[TaskOutcome, ...]
    seconds: float
    bytes_down: int = 0
    bytes_up: int = 0
    carried: tuple[LateReplyRef, ...] = ()
    """Late replies of earlier rounds that count in this one: part of the closing set."""

    def to_dict(self) -> dict[str, Any]:
        """Return it as values that a record can hold."""
        return {
            "reason": self.reason,
            "accepted": list(self.accepted),
            "outcomes": [[o.client_id, o.outcome.value, o.reason] for o in self.outcomes],
            "seconds": self.seconds,
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "carried": [[c.client_id, c.server_round, c.task_id] for c in self.carried],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ClosedPhase:
        """Return the closing set of which `to_dict` made ``values``."""
        return cls(
            **{
                **values,
                "accepted": tuple(values["accepted"]),
                "outcomes": tuple(
                    TaskOutcome(c, Outcome(word), why) for c, word, why in values["outcomes"]
                ),
                # Older records, from before late replies could count, have none.
                "carried": tuple(LateReplyRef(*each) for each in values.get("carried", ())),
            }
        )


@dataclass(frozen=True, slots=True)
class LateEntry:
    """A late or duplicate reply, to be entered."""

    key: PhaseKey
    client_id: str
    outcome: Outcome
    """LATE or DUPLICATE."""
    seconds: float
    """Seconds after the phase had closed; 0 if it was open."""
    note: str = ""
    """A note: that it was expired, or why it was rejected."""
    kept: Contribution | None = None
    """The reply itself, if it is to count in a later round."""
    part: Part | None = None
    """What its client did, to be looked at."""


@dataclass(frozen=True, slots=True)
class CarriedReply:
    """A late reply that is kept because it counts in a later round."""

    key: PhaseKey
    """The phase that had asked for it."""
    seconds: float
    """How many seconds late it was."""
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """All that is recorded of a phase so far."""

    key: PhaseKey
    plan: Plan
    elapsed: float
    """Seconds that it has been open under a server in charge, to the last `PhaseWriter.tick`."""
    contributions: tuple[Contribution, ...]
    """In the order of their arrival."""
    closed: ClosedPhase | None
    sums: tuple[RecordedSum, ...] = ()
    """Partial sums, in the order of their arrival."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A run after a round: all that its continuation depends on."""

    server_round: int
    parameters: Parameters
    """On disk, mapped on access."""
    history: dict[str, Any]
    state: dict[str, Any]
    """The strategy's state."""
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
    """Why it is kept: ``last``, ``best`` or ``every``."""


@dataclass(frozen=True, slots=True)
class KeepPolicy:
    """Which models stay on disk besides the last one, which always does, and whether replies do."""

    best: str | None = None
    """``"loss"``: the model with the least; another name: the greatest metric of that name. What
    counts is the checkpoint's summary: its ``loss``, or its ``metrics``. The first of equals."""
    every: int | None = None
    """Every k-th round's model."""
    replies: str = "round"
    """``"round"``: plans and replies go when their round has its checkpoint; ``"all"``: stay."""

    def __post_init__(self) -> None:
        """Refuse invalid values."""
        if self.every is not None and self.every < 1:
            raise ValueError(f"every is {self.every}: give 1 or more rounds, or None")
        if self.replies not in ("round", "all"):
            raise ValueError(f'replies is {self.replies!r}: give "round" or "all"')


@dataclass(frozen=True, slots=True)
class LateReply:
    """A late or duplicate reply, for people to read."""

    client_id: str
    outcome: Outcome
    """LATE or DUPLICATE."""
    seconds: float
    """Seconds late, of a late reply or of the last duplicate; 0 if the phase was open."""
    times: int
    note: str = ""
    """A note about it."""
    into: int | None = None
    """The later round in which it counts; None if none."""
    waits: bool = False
    """Whether it is kept for a later round that has not closed yet."""
    part: Part | None = None
    """What the client did, if that is read and recorded: of a duplicate, the last one."""


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
    """While the phase is open: those received so far."""
    seconds: float
    bytes_down: int
    bytes_up: int
    late: tuple[LateReply, ...]
    carried: int = 0
    """Number of late replies of earlier rounds that count in it."""
    counts: Mapping[Outcome, int] = field(default_factory=dict)
    """How many asks had which outcome, as ``outcomes``, which are not always read."""
    closed_unix_ms: int | None = None
    """By the server's clock; None while it is open."""
    timeout: float | None = None
    """Seconds that it might be open; None: no limit, or not recorded."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """What `PhaseWriter.close` was given to be read with it."""
    parts: tuple[Part, ...] = ()
    """What each client did, if that is read: in the order of ``outcomes``. While the phase is open:
    of all that were asked. Empty for a phase that an older flmq closed."""

    def known_parts(self) -> tuple[Part, ...]:
        """Return a part for each of ``outcomes``, in their order, bare where none is recorded.

        A stream's phase has asks that are awaited and have no outcome, and asks of one client
        several times.
        """
        recorded: dict[tuple[str, Outcome], list[Part]] = {}
        for part in reversed(self.parts):
            if part.outcome is not None:
                recorded.setdefault((part.ask, part.outcome), []).append(part)
        parts = []
        for each in self.outcomes:
            found = recorded.get((each.client_id, each.outcome))
            bare = Part(each.client_id, each.outcome, each.reason)
            parts.append(found.pop() if found else bare)
        return tuple(parts)


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
    """The summary in its checkpoint."""


class RunState(Enum):
    """The state of a run."""

    RUNNING = "running"
    """A live process is in charge of it."""
    UNFINISHED = "unfinished"
    """No process is in charge; starting its server resumes it."""
    FINISHED = "finished"
    DAMAGED = "damaged"


@dataclass(frozen=True, slots=True)
class RunInfo:
    """A summary of a run's folder."""

    folder: Path
    job: str
    run_id: str
    state: RunState
    rounds: int
    """Number of rounds that have a checkpoint."""
    started_unix_ms: int | None
    about: dict[str, Any] = field(default_factory=dict)
    ending: dict[str, Any] | None = None
    problem: str = ""
    """What is wrong, if it is damaged."""
