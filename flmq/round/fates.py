"""The table of a reply's fate: what it is, given the stage of its ask, and what to do about it."""

from __future__ import annotations

from enum import Enum

__all__ = ["STAGES", "STEPS", "AskStage", "Fate", "Step"]


class AskStage(Enum):
    """Stage of an ask."""

    AWAITED = "awaited"
    """An earlier server asked; its phase is not open here yet."""
    OPEN = "open"
    """Its phase is open, and nothing has come."""
    CLOSING = "closing"
    """Its phase closed without a reply, and the closing set is not durable yet."""
    UNANSWERED = "unanswered"
    """Its phase closed for good without a reply."""
    ANSWERED = "answered"
    """A reply came, in time or late."""
    FORGOTTEN = "forgotten"
    """Neither memory nor record has it."""


class Fate(Enum):
    """What a reply means to the job."""

    SETTLES = "settles its ask"
    """The first one to an ask of an open phase."""
    EARLY = "early"
    """Its phase was left open by an earlier server, and is not open here yet."""
    UNDECIDED = "undecided"
    """Its phase has closed, but another server could still close it differently: it waits."""
    LATE = "late"
    """The first one after its phase has closed for good: dropped."""
    LATE_WANTED = "late and wanted"
    """Late, and counts in a later round if it matches its request."""
    DUPLICATE = "duplicate"
    """Its ask had a reply before."""
    UNKNOWN = "unknown"
    """Nothing is known of its phase."""


STAGES: dict[AskStage, Fate] = {
    AskStage.AWAITED: Fate.EARLY,
    AskStage.OPEN: Fate.SETTLES,
    AskStage.CLOSING: Fate.UNDECIDED,
    AskStage.UNANSWERED: Fate.LATE,  # LATE_WANTED, where there is a round for it to count in
    AskStage.ANSWERED: Fate.DUPLICATE,
    AskStage.FORGOTTEN: Fate.UNKNOWN,
}
"""The fate of a reply, by the stage of its ask."""


class Step(Enum):
    """A step in handling a reply."""

    JOURNAL = "journal"
    COUNT = "count"
    RECEIPT = "receipt"
    ACK = "ack"


STEPS: dict[Fate, tuple[Step, ...]] = {
    Fate.SETTLES: (Step.JOURNAL, Step.COUNT, Step.RECEIPT, Step.ACK),
    Fate.EARLY: (Step.JOURNAL, Step.ACK),
    Fate.UNDECIDED: (),
    Fate.LATE: (Step.JOURNAL, Step.COUNT, Step.RECEIPT, Step.ACK),
    Fate.LATE_WANTED: (Step.JOURNAL, Step.COUNT, Step.RECEIPT, Step.ACK),
    Fate.DUPLICATE: (Step.JOURNAL, Step.COUNT, Step.RECEIPT, Step.ACK),
    # No receipt in a job with a record: its client keeps the reply, and the phase may yet come.
    Fate.UNKNOWN: (Step.RECEIPT, Step.ACK),
}
"""What to do about a reply, in this order, by its fate."""
