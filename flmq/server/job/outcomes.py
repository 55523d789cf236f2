"""What each ask came to: a reply as it was taken, told to observers, and kept for people."""

from __future__ import annotations

from dataclasses import dataclass

from flmq.common.times import TaskTimes
from flmq.journal.parts import Part, few_metrics
from flmq.observe.events import ClientOutcome
from flmq.round import Outcome, PhaseKey, TaskOutcome
from flmq.round.job_actions import Verdict
from flmq.wire import Failure, Reply

__all__ = ["Taken", "described", "part_of"]


@dataclass(frozen=True, slots=True)
class Taken:
    """A reply as it came from its queue, and its size in bytes."""

    reply: Reply
    bytes: int
    at: float
    """When it came, in monotonic seconds."""
    times: TaskTimes | None = None
    """The course of its task."""
    recorded: bool = False
    """Whether an earlier server took it in, and it only came from the record at `at`."""


def described(
    key: PhaseKey, ask: str, verdict: Verdict, taken: Taken | None, seconds: float | None = None
) -> ClientOutcome:
    """Return the event that tells observers the outcome of an ask."""
    res = None if taken is None else taken.reply.res
    reason = verdict.reason
    if verdict.outcome is Outcome.LATE:
        note = verdict.note if verdict.into is None else f"counts in round {verdict.into}"
        after = f"{verdict.late_by:.1f} s after the round closed"
        reason = f"{after}, {note}" if note else after
    return ClientOutcome(
        server_round=key.server_round,
        phase=key.phase,
        client_id=ask,
        outcome=verdict.outcome,
        reason=reason,
        seconds=seconds,
        num_examples=getattr(res, "num_examples", None),
        bytes_up=0 if taken is None else taken.bytes,
        detail=res.traceback_tail if isinstance(res, Failure) else "",
        metrics=getattr(res, "metrics", {}) if verdict.outcome is Outcome.ACCEPTED else {},
        task_id="" if taken is None else taken.reply.task_id,
        times=None if taken is None else taken.times,
    )


def part_of(settled: TaskOutcome, told: ClientOutcome | None) -> Part:
    """Return what a client did, as observers were told."""
    if told is None:
        return Part(settled.client_id, settled.outcome, settled.reason)
    metrics, left_out = few_metrics(told.metrics)
    return Part(
        settled.client_id,
        settled.outcome,
        settled.reason,
        told.detail,
        told.seconds,
        told.num_examples,
        told.bytes_up,
        metrics,
        left_out,
        told.times,
    )
