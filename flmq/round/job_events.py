"""Events of a job's asks: plain facts, fed in by the owner of clock and socket."""

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
from flmq.round.fates import Fate
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
]

Claim = ReplyAccepted | ReplyFailed | ReplyRejected
"""What a reply is by its content, checked against its request."""


class Origin(Enum):
    """Where a reply comes from."""

    QUEUE = "queue"
    """A client sent it; the job's record does not have it."""
    RECORD = "record"
    """An earlier server recorded it, with its outcome."""
    UNJUDGED = "record, unjudged"
    """It was recorded before its phase was opened, and so could not be checked."""


@dataclass(frozen=True, slots=True)
class PhaseOpened:
    """A phase begins: its asks are in the record, if there is one."""

    key: PhaseKey
    asks: Mapping[str, str]
    """Names of the asks (`ask_name`), by task id."""
    policy: Policy
    label: str = ""
    """Text for errors."""
    journaled: bool = False
    """Whether it is part of the job's record."""
    hands_over: bool = False
    """Whether late replies count in it, and those to it in later phases."""
    carried: tuple[LateReplyRef, ...] | None = None
    """The late replies with which an earlier server closed it; None if none has closed it."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the record has on a closed phase that is no longer in memory."""

    key: PhaseKey
    ask: str
    answered: bool
    """Whether a reply to this ask came before, in time or late."""
    seconds: float
    """Seconds since it was closed."""


@dataclass(frozen=True, slots=True)
class ReplyCame:
    """A reply is here, decoded and checked."""

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
    """What the record has on its phase; None if that is in memory, or if there is no record."""
    note: str = ""
    """Why it cannot count in a later round either; empty if it can."""
    packed: bool = False
    """Whether it is compressed, and cannot be read before its phase is opened."""


@dataclass(frozen=True, slots=True)
class RepliedLateBefore:
    """Asks of a closed phase that had their late reply under an earlier server."""

    key: PhaseKey
    asks: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True, slots=True)
class PhaseClosedDurably:
    """A phase's closing set is in the record (or needs none): replies are late from now on."""

    key: PhaseKey


@dataclass(frozen=True, slots=True)
class PhaseEvent:
    """Something other than a reply happens to a phase."""

    key: PhaseKey
    event: DeadlinePassed | Stopped | TaskUnroutable
    at: float
