"""Events of a job's asks: plain facts, reported by the code that owns the clock and the socket."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from flmq.round.actions import LateReplyRef
from flmq.round.events import (
    DeadlinePassed,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    Stopped,
    TaskUnroutable,
)
from flmq.round.fates import Fate, SumFate
from flmq.round.keys import PhaseKey
from flmq.round.state import Policy

__all__ = [
    "Claim",
    "Origin",
    "PhaseClosedDurably",
    "PhaseEvent",
    "PhaseOpened",
    "Recorded",
    "RepliedLateBefore",
    "ReplyCame",
    "SumCame",
    "SumEntry",
    "named_claim",
]

Claim = ReplyAccepted | ReplyFailed | ReplyRejected
"""The result of checking a reply's content against its request."""


class Origin(Enum):
    """Where a reply comes from."""

    QUEUE = "queue"
    """A client sent it; the job's record does not have it."""
    RECORD = "record"
    """An earlier server recorded it, with its outcome."""
    UNJUDGED = "record, unjudged"
    """An earlier server recorded it before it opened the phase, and so could not check it."""


@dataclass(frozen=True, slots=True)
class PhaseOpened:
    """A phase opens. If the job has a record, the phase's asks are already in it."""

    key: PhaseKey
    asks: Mapping[str, str]
    """Names of the asks (`ask_name`), by task id."""
    policy: Policy
    label: str = ""
    """The phase's name in error messages."""
    journaled: bool = False
    """Whether the phase is part of the job's record."""
    hands_over: bool = False
    """Whether earlier rounds' late replies count in it, and its own in later rounds."""
    carried: tuple[LateReplyRef, ...] | None = None
    """Late replies in the closing set of an earlier server; None if no server has closed it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the record says of a closed phase that is no longer in memory, and of one ask in it."""

    key: PhaseKey
    ask: str
    answered: bool
    """Whether this ask has had a reply before, in time or late."""
    seconds: float
    """Seconds since the phase closed."""


@dataclass(frozen=True, slots=True)
class ReplyCame:
    """A reply has arrived and was decoded and checked."""

    token: int
    """Identifies the reply to the caller that performs the actions."""
    task_id: str
    client_id: str
    fate: Fate
    """Result of `JobState.fate_of` when it was checked; it is checked again if that changes."""
    claim: Claim
    at: float
    """Seconds by the server's clock."""
    origin: Origin = Origin.QUEUE
    recorded: Recorded | None = None
    """What the record says of its phase; None if that is in memory, or if there is no record."""
    note: str = ""
    """Why it cannot count in a later round; empty if it can."""
    packed: bool = False
    """Whether it is still compressed, and so cannot be read before its phase is opened."""


@dataclass(frozen=True, slots=True)
class SumEntry:
    """What a partial sum says of one ask."""

    token: int
    """Identifies this answer to the caller that performs the actions."""
    task_id: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class SumCame:
    """An aggregator's partial sum has arrived and was decoded and checked."""

    token: int
    """Identifies the sum to the caller that performs the actions."""
    order_id: str
    """Task id of the order that it answers."""
    key: PhaseKey
    entries: tuple[SumEntry, ...]
    fate: SumFate
    """Result of `JobState.fate_of_sum` when it was checked; it is checked again if that changes."""
    at: float
    """Seconds by the server's clock."""
    origin: Origin = Origin.QUEUE
    problem: str = ""
    """Why it cannot count; empty if it can. ``entries`` are then not to be relied on."""


@dataclass(frozen=True, slots=True)
class RepliedLateBefore:
    """Asks of a closed phase whose late reply reached an earlier server."""

    key: PhaseKey
    asks: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class PhaseClosedDurably:
    """A phase's closing set is in the record (or needs none): from now on its replies are late."""

    key: PhaseKey


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """An event of a phase other than a reply."""

    key: PhaseKey
    event: DeadlinePassed | Stopped | TaskUnroutable
    at: float


def named_claim(claim: Claim, ask: str) -> Claim:
    """Return the claim with the ask's name."""
    match claim:
        case ReplyAccepted():
            return ReplyAccepted(ask)
        case ReplyFailed(_, reason):
            return ReplyFailed(ask, reason)
        case ReplyRejected(_, reason):
            return ReplyRejected(ask, reason)
