"""What can happen to a round: plain facts, fed in by whoever owns clock and socket."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.round.actions import LateReplyRef

__all__ = [
    "DeadlinePassed",
    "Event",
    "LateReplyOffered",
    "ReplyAccepted",
    "ReplyFailed",
    "ReplyRejected",
    "Stopped",
    "TaskUnroutable",
]


@dataclass(frozen=True, slots=True)
class ReplyAccepted:
    """A reply came and answers what was asked."""

    client_id: str


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """A reply came in which the client says that it could not."""

    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplyRejected:
    """A reply came that does not answer what was asked."""

    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class TaskUnroutable:
    """The broker has no queue for the client's task."""

    client_id: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The time allowed is over."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The operator ends the round early."""

    reason: str


@dataclass(frozen=True, slots=True)
class LateReplyOffered:
    """A reply that came late to an earlier round, and is to count in this one if it still can."""

    carried: LateReplyRef


Event = (
    ReplyAccepted
    | ReplyFailed
    | ReplyRejected
    | TaskUnroutable
    | DeadlinePassed
    | Stopped
    | LateReplyOffered
)
