"""Actions on a reply or an ask, returned by `flmq.round.job` in the order to perform them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flmq.round.actions import Close, LateReplyRef, Outcome, TaskOutcome
from flmq.round.keys import PhaseKey

__all__ = [
    "LONG_OVER",
    "Ack",
    "Carry",
    "ClosePhase",
    "Count",
    "Enter",
    "EnterSum",
    "Entry",
    "JobAction",
    "JudgeAgain",
    "Keep",
    "Merge",
    "Refuse",
    "SendReceipt",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome of a reply, or of an ask without one."""

    outcome: Outcome
    reason: str = ""
    late_by: float = 0.0
    """Seconds since its phase closed; 0 if the phase was open, or if that is unknown."""
    note: str = ""
    """Why a late reply does not count; empty if it counts."""
    into: int | None = None
    """The later round in which a late reply counts; None if it counts in none."""

    @classmethod
    def of(cls, settled: TaskOutcome) -> Verdict:
        """Return the verdict on an ask as its round settled it."""
        return cls(settled.outcome, settled.reason)


LONG_OVER = Verdict(Outcome.LATE, note="its round is long over")
"""The verdict on what answers a phase of which nothing is known."""


class Entry(Enum):
    """How a reply is entered into the record."""

    REPLY = "reply"
    UNJUDGED = "reply, unjudged"
    JUDGED = "judged"
    """The reply is in the record already; its outcome is added."""
    LATE = "late"
    """A late reply or a duplicate."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Journal a reply."""

    token: int
    key: PhaseKey
    ask: str
    entry: Entry
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class EnterSum:
    """Journal a partial sum, in one transaction with the `Enter` of each of its answers."""

    token: int
    key: PhaseKey
    answers: tuple[int, ...]
    """Their tokens."""


@dataclass(frozen=True, slots=True)
class Merge:
    """Add a partial sum to what the phase has added up."""

    token: int
    key: PhaseKey


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not count a partial sum; its site's clients are to be asked for their replies."""

    token: int
    key: PhaseKey
    reason: str


@dataclass(frozen=True, slots=True)
class Count:
    """Count the outcome of an ask, and tell observers."""

    key: PhaseKey
    ask: str
    verdict: Verdict
    token: int | None = None
    """The reply; None if the ask had none."""


@dataclass(frozen=True, slots=True)
class Carry:
    """Count a late reply of an earlier round in this phase."""

    key: PhaseKey
    ref: LateReplyRef


@dataclass(frozen=True, slots=True)
class SendReceipt:
    """Tell the client the outcome of its reply, so that it can forget it."""

    token: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Ack:
    """Ack the message that brought the reply, so that the broker forgets it."""

    token: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Ack a reply that cannot be read yet, and keep it in memory; its client keeps a copy."""

    token: int


@dataclass(frozen=True, slots=True)
class JudgeAgain:
    """Check a reply again, because its fate has changed since the last check."""

    token: int


@dataclass(frozen=True, slots=True)
class ClosePhase:
    """Close a phase: no further reply counts in it."""

    key: PhaseKey
    close: Close


JobAction = (
    Enter
    | EnterSum
    | Merge
    | Refuse
    | Count
    | Carry
    | SendReceipt
    | Ack
    | Keep
    | JudgeAgain
    | ClosePhase
)
