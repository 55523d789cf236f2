"""The table of a reply's fate: what it is, by the stage of its ask, and how it is handled."""

from __future__ import annotations

from enum import Enum

__all__ = ["STAGES", "STEPS", "WANTED", "AskStage", "Fate", "Step", "SumFate"]


class AskStage(Enum):
    """Stage of an ask."""

    AWAITED = "awaited"
    """An earlier server asked; this server has not opened its phase yet."""
    OPEN = "open"
    """Its phase is open, and no reply has come."""
    CLOSING = "closing"
    """Its phase closed without its reply, and the closing set is not durable yet."""
    UNANSWERED = "unanswered"
    """Its phase closed without its reply, and the closing set is durable."""
    ANSWERED = "answered"
    """A reply came, in time or late."""
    FORGOTTEN = "forgotten"
    """It is neither in memory nor in the record."""


class Fate(Enum):
    """What a reply means to the job."""

    SETTLES = "settles its ask"
    """The first reply to an ask of an open phase."""
    EARLY = "early"
    """An earlier server left its phase open, and this server has not opened it yet."""
    UNDECIDED = "undecided"
    """Its phase has closed, but not durably: another server could still close it differently."""
    LATE = "late"
    """The first reply to its ask, after the phase closed durably: it is dropped."""
    LATE_WANTED = "late and wanted"
    """Late, but counts in a later round if it matches its request."""
    DUPLICATE = "duplicate"
    """Its ask has had a reply before."""
    UNKNOWN = "unknown"
    """Nothing is known of its phase."""


STAGES: dict[AskStage, Fate] = {
    AskStage.AWAITED: Fate.EARLY,
    AskStage.OPEN: Fate.SETTLES,
    AskStage.CLOSING: Fate.UNDECIDED,
    AskStage.UNANSWERED: Fate.LATE,  # LATE_WANTED if there is a later round to count it in
    AskStage.ANSWERED: Fate.DUPLICATE,
    AskStage.FORGOTTEN: Fate.UNKNOWN,
}
"""The fate of a reply, by the stage of its ask."""


class SumFate(Enum):
    """What an aggregator's partial sum means to the job: it counts whole, or not at all."""

    SETTLES = "settles its asks"
    """Its phase is open, and all its asks are."""
    REFUSED = "refused"
    """Its phase is open, and one of its asks is not, or it does not fit what was asked."""
    EARLY = "early"
    """An earlier server left its phase open: it waits until this server has opened it."""
    UNDECIDED = "undecided"
    """Its phase has closed, but not durably: it waits for that."""
    LATE = "late"
    """Its phase closed durably: each of its asks is late, or a duplicate."""
    DUPLICATE = "duplicate"
    """It has been taken before."""
    UNKNOWN = "unknown"
    """Nothing is in memory of its phase."""


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
    # A job with a record sends no receipt: the client keeps its reply, as the phase may still open.
    Fate.UNKNOWN: (Step.RECEIPT, Step.ACK),
}
"""The steps that handle a reply, in order, by its fate."""

WANTED = frozenset({Fate.SETTLES, Fate.EARLY, Fate.UNDECIDED, Fate.LATE_WANTED})
"""What a reply is whose parameters are worth receiving: it counts, or may yet."""
