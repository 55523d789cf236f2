"""One round as a pure state machine: no clock, no socket; events in, actions out."""

from __future__ import annotations

from flmq.round.actions import Action, Carry, Close, LateReplyRef, Outcome, Settle, TaskOutcome
from flmq.round.events import (
    DeadlinePassed,
    Event,
    LateReplyOffered,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    Stopped,
    TaskUnroutable,
)
from flmq.round.state import Policy, Round, RoundState, TaskState, UnexpectedEvent

__all__ = [
    "Action",
    "Carry",
    "Close",
    "DeadlinePassed",
    "Event",
    "LateReplyOffered",
    "LateReplyRef",
    "Outcome",
    "Policy",
    "ReplyAccepted",
    "ReplyFailed",
    "ReplyRejected",
    "Round",
    "RoundState",
    "Settle",
    "Stopped",
    "TaskOutcome",
    "TaskState",
    "TaskUnroutable",
    "UnexpectedEvent",
]
