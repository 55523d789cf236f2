"""The fate of a reply to a job, and what to do about it, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from flmq.round.actions import Close, LateReplyRef, Outcome
from flmq.round.keys import PhaseKey

__all__ = [
    "Ack",
    "Carry",
    "ClosePhase",
    "Count",
    "Enter",
    "Entry",
    "JobAction",
    "JudgeAgain",
    "Keep",
    "SendReceipt",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Verdict:
    """Outcome of a reply, or of an ask without one."""

    outcome: Outcome
    reason: str = ""
    late_by: float = 0.0
    """Seconds after its phase closed; 0 if it was open, or if unknown."""
    note: str = ""
    """Why a late reply does not count."""
    into: int | None = None
    """The later round that a late reply counts in."""


class Entry(Enum):
    """How a reply is entered into the record."""

    REPLY = "reply"
    UNJUDGED = "reply, unjudged"
    JUDGED = "judged"
    """It is in the record, and its outcome is known now."""
    LATE = "late"
    """As late, or as a duplicate."""


@dataclass(frozen=True, slots=True)
class Enter:
    """Journal a reply."""

    token: int
    key: PhaseKey
    ask: str
    entry: Entry
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Count:
    """Count the outcome of an ask, and tell observers."""

    key: PhaseKey
    ask: str
    verdict: Verdict
    token: int | None = None
    """None if there was no reply."""


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
    """Let the broker forget the message that brought the reply."""

    token: int


@dataclass(frozen=True, slots=True)
class Keep:
    """Ack a reply that cannot be read yet, and keep it in memory; its client has it as well."""

    token: int


@dataclass(frozen=True, slots=True)
class JudgeAgain:
    """Check a reply again: its fate has changed since."""

    token: int


@dataclass(frozen=True, slots=True)
class ClosePhase:
    """No further reply counts in this phase."""

    key: PhaseKey
    close: Close


JobAction = Enter | Count | Carry | SendReceipt | Ack | Keep | JudgeAgain | ClosePhase
