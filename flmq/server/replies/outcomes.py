"""What is told of replies: their outcomes, and why none is taken in any more."""

from __future__ import annotations

from flmq.common.errors import RunError
from flmq.round import Outcome
from flmq.round.job_actions import Verdict

__all__ = ["NobodyListens", "told_of"]


class NobodyListens(RunError):
    """A fault ended the receiving of replies."""

    def __init__(self, cause: BaseException) -> None:
        """Name the ``cause`` in the message."""
        super().__init__(
            f"replies can no longer be taken in ({type(cause).__name__}: {cause}): please report "
            "this with the log; where the job has a journal, start the server again to go on"
        )


def told_of(verdict: Verdict) -> tuple[Outcome, str]:
    """Return the outcome and the reason to tell a reply's client, or a sum's aggregator."""
    outcome, reason = verdict.outcome, verdict.reason
    if verdict.into is not None:
        return Outcome.ACCEPTED, f"accepted late into round {verdict.into}"
    if outcome is not Outcome.LATE:
        return outcome, reason
    if verdict.late_by == 0.0 and verdict.note:
        return outcome, verdict.note
    dropped = f"late by {verdict.late_by:.1f} s, dropped"
    return outcome, f"{dropped}: {verdict.note}" if verdict.note else dropped
