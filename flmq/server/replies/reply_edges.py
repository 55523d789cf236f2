"""What the reply loop reaches the world through, and what it holds of a reply meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from flmq.messaging import Incoming
from flmq.observe.events import RunEvent
from flmq.round import Outcome
from flmq.round.job_actions import Enter
from flmq.round.job_events import Origin, Recorded
from flmq.server.job.late import LateReplyPolicy
from flmq.server.strategy.reply_check import ParametersSpec
from flmq.wire import Reply

__all__ = ["InHand", "ReplyEdges", "ReplyEntry", "ReplyRecord"]


@dataclass(frozen=True, slots=True)
class ReplyEntry:
    """A reply to be entered into the job's record."""

    action: Enter
    reply: Reply
    size: int
    """Bytes that came for it."""


class ReplyRecord(Protocol):
    """Where replies are made durable: a job's journal."""

    def enter(self, entries: Sequence[ReplyEntry]) -> None:
        """Enter replies, all or none; durable on return."""

    def recorded(self, reply: Reply) -> Recorded | None:
        """What is known of the closed phase that a reply answers; None: nothing."""


@dataclass(frozen=True, slots=True)
class ReplyEdges:
    """What the loop reaches the world through."""

    emit: Callable[[RunEvent], None]
    clock: Callable[[], float]
    """Seconds, monotonic."""
    ack: Callable[[Incoming], None] = lambda incoming: None
    receipt: Callable[[Reply, Outcome, str, float], None] = lambda reply, outcome, reason, by: None
    """Tells a client what became of its reply, why, and how many seconds late it was."""
    unpack: Callable[[Reply], Reply | str] = lambda reply: reply
    """Decompresses a reply's parameters; or says why that cannot be done."""
    record: ReplyRecord | None = None
    late_policy: LateReplyPolicy | None = None
    model: ParametersSpec | None = None
    """What an earlier server's tasks had in them, as far as is known."""


@dataclass(slots=True)
class InHand:
    """A reply that is being dealt with."""

    reply: Reply
    size: int
    """Bytes that came for it."""
    at: float
    """When it came, in monotonic seconds."""
    incoming: Incoming | None
    """What to ack; None: nothing (any more)."""
    origin: Origin = Origin.QUEUE
    spoiled: str = ""
    """Why it came to nothing on its way, where it did."""
