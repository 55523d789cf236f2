"""Events of a round: plain facts, fed in by the owner of clock and socket."""

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
    "SettledTogether",
    "Stopped",
    "TaskUnroutable",
]


@dataclass(frozen=True, slots=True)
class ReplyAccepted:
    """A reply came that matches the request."""

    client_id: str


@dataclass(frozen=True, slots=True)
class ReplyFailed:
    """A reply came in which the client reports a failure."""

    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ReplyRejected:
    """A reply came that does not match the request."""

    client_id: str
    reason: str


@dataclass(frozen=True, slots=True)
class SettledTogether:
    """Replies of several clients count at once: whether the round is over is asked after the last.

    An aggregator's partial sum brings them; none of it can be left out.
    """

    claims: tuple[ReplyAccepted | ReplyFailed | ReplyRejected, ...]


@dataclass(frozen=True, slots=True)
class TaskUnroutable:
    """The broker has no queue for the client's task."""

    client_id: str


@dataclass(frozen=True, slots=True)
class DeadlinePassed:
    """The deadline has passed."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The operator ends the round early."""

    reason: str


@dataclass(frozen=True, slots=True)
class LateReplyOffered:
    """A late reply to an earlier round is offered, to count in this one if still possible."""

    carried: LateReplyRef


Event = (
    ReplyAccepted
    | ReplyFailed
    | ReplyRejected
    | SettledTogether
    | TaskUnroutable
    | DeadlinePassed
    | Stopped
    | LateReplyOffered
)
