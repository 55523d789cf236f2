"""What the round asks its caller to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["Action", "Carry", "Close", "LateReplyRef", "Outcome", "Settle", "TaskOutcome"]


class Outcome(Enum):
    """Outcome of one client's task, or of one reply."""

    ACCEPTED = "accepted"
    """Its reply counts."""
    FAILED = "failed"
    """The client reported a failure: an exception, or a status other than OK."""
    REJECTED = "rejected"
    """It replied, but the reply does not match the request."""
    SILENT = "silent"
    """Nothing came before the round closed."""
    UNROUTABLE = "unroutable"
    """The client has no queue on the broker."""
    LATE = "late"
    """The first reply after the round closed: it does not count in this round."""
    DUPLICATE = "duplicate"
    """A further reply to the same task: not counted."""


@dataclass(frozen=True, slots=True)
class TaskOutcome:
    """A client and the outcome of its task."""

    client_id: str
    outcome: Outcome
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Settle:
    """Report the outcome of a task or a reply: record it and, after a reply, tell the client.

    Emitted once per client for its final outcome, and once for each late or duplicate reply.
    """

    outcome: TaskOutcome


@dataclass(frozen=True, order=True, slots=True)
class LateReplyRef:
    """A reply that came late to an earlier round and counts in this one."""

    client_id: str
    server_round: int
    """The round that had asked for it."""
    task_id: str


@dataclass(frozen=True, slots=True)
class Carry:
    """Count a late reply of an earlier round in this one."""

    carried: LateReplyRef


@dataclass(frozen=True, slots=True)
class Close:
    """No further reply counts: ``accepted``, in client-id order, and ``carried`` are all."""

    reason: str
    accepted: tuple[str, ...]
    enough: bool
    """Whether ``accepted`` has at least ``min_results`` members."""
    carried: tuple[LateReplyRef, ...] = ()
    """Late replies of earlier rounds, by client id and then by the round that asked."""


Action = Settle | Carry | Close
