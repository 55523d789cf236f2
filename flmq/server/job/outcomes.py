"""What each ask came to: a reply as it was taken, told to observers, and kept for people."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flmq.common.times import TaskTimes
from flmq.journal.parts import Part
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
    key: PhaseKey,
    ask: str,
    verdict: Verdict,
    taken: Taken | None,
    *,
    seconds: float | None = None,
    task_id: str = "",
    published_ms: int | None = None,
) -> ClientOutcome:
    """Return the event that tells observers the outcome of an ask.

    ``task_id`` and ``published_ms`` are of the ask's task, where they are known: the reply's own
    task is named otherwise.
    """
    res = None if taken is None else taken.reply.res
    times = None if taken is None else taken.times
    if published_ms is not None and (times is None or not times.published_ms):
        times = replace(times or TaskTimes(), published_ms=published_ms)
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
        task_id=task_id or ("" if taken is None else taken.reply.task_id),
        times=times,
    )


def part_of(settled: TaskOutcome, told: ClientOutcome | None) -> Part:
    """Return what a client did, as observers were told; the journal keeps few of its metrics."""
    if told is None:
        return Part(settled.client_id, settled.outcome, settled.reason)
    return Part(
        settled.client_id,
        settled.outcome,
        settled.reason,
        told.detail,
        told.seconds,
        told.num_examples,
        told.bytes_up,
        told.metrics,
        times=told.times,
    )
