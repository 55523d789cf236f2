"""Rounds, and the job that they belong to, as pure state machines: events in, actions out."""

from __future__ import annotations

from flmq.round.actions import (
    Action,
    Carry,
    Close,
    LateReplyRef,
    Outcome,
    Settle,
    TaskOutcome,
)
from flmq.round.events import (
    DeadlinePassed,
    Event,
    LateReplyOffered,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    SettledTogether,
    Stopped,
    TaskUnroutable,
)
from flmq.round.job import JobEvent, JobState
from flmq.round.keys import DIRECT, STREAM, PhaseKey, ask_name, client_of
from flmq.round.state import Policy, Round, RoundState, TaskState, UnexpectedEvent

__all__ = [
    "DIRECT",
    "STREAM",
    "Action",
    "Carry",
    "Close",
    "DeadlinePassed",
    "Event",
    "JobEvent",
    "JobState",
    "LateReplyOffered",
    "LateReplyRef",
    "Outcome",
    "PhaseKey",
    "Policy",
    "ReplyAccepted",
    "ReplyFailed",
    "ReplyRejected",
    "Round",
    "RoundState",
    "Settle",
    "SettledTogether",
    "Stopped",
    "TaskOutcome",
    "TaskState",
    "TaskUnroutable",
    "UnexpectedEvent",
    "ask_name",
    "client_of",
]
