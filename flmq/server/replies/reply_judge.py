"""Check a reply's contents as far as its fate requires."""

from __future__ import annotations

from flmq.common.parameter import parameters_of
from flmq.common.typing import FitRes, Parameters
from flmq.round import ReplyAccepted, ReplyRejected
from flmq.round.fates import Fate
from flmq.round.job_events import Claim, ReplyCame
from flmq.server.job.late import misfit, why_not_later
from flmq.server.replies.reply_edges import InHand, ReplyEdges
from flmq.server.replies.task_directory import TaskDirectory
from flmq.server.strategy.casting import cast_like
from flmq.wire import Reply, Task

__all__ = ["ReplyJudge"]


class ReplyJudge:
    """Checks replies. Thread-safe."""

    def __init__(self, tasks: TaskDirectory, edges: ReplyEdges) -> None:
        """Check replies against what the phases in ``tasks`` asked."""
        self._tasks = tasks
        self._edges = edges

    def judge(self, token: int, hand: InHand) -> ReplyCame:
        """Return the event to feed for a reply; unpack its parameters if they may count."""
        reply = hand.reply
        recorded = self._tasks.recorded(reply)
        with self._tasks.lock:
            fate = self._tasks.state.fate_of(reply.task_id, recorded)
        claim, note = self._check(hand, fate)
        return ReplyCame(
            token,
            reply.task_id,
            reply.client_id,
            fate,
            claim,
            hand.at,
            hand.origin,
            recorded,
            note,
            packed=hand.reply.blob is not None,
        )

    def _check(self, hand: InHand, fate: Fate) -> tuple[Claim, str]:
        """Return whether a reply is valid, and why it cannot count later (empty: it can)."""
        client_id = hand.reply.client_id
        if fate in (Fate.SETTLES, Fate.LATE_WANTED) and hand.reply.blob is not None:
            unpacked = hand.reply if hand.spoiled else self._edges.unpack(hand.reply)
            if isinstance(unpacked, str):
                hand.spoiled = unpacked
            else:
                hand.reply = unpacked
        if hand.spoiled:
            return ReplyRejected(client_id, hand.spoiled), f"rejected: {hand.spoiled}"
        found = self._tasks.phase_of(hand.reply.task_id)
        if fate is Fate.SETTLES:
            assert found is not None
            phase, ask = found
            if reason := _other_base(hand.reply, phase.tasks.get(ask)):
                return ReplyRejected(ask, reason), ""
            if reason := self._fit(hand, phase.fitted(ask, hand.reply)):
                return ReplyRejected(ask, reason), ""
            return phase.claim(ask, hand.reply), ""
        note = why_not_later(hand.reply)
        if fate is Fate.LATE_WANTED and not note:
            assert self._edges.late_policy is not None
            if found is None:
                sent = self._tasks.sent_before or self._edges.model
            else:
                sent = found[0].specs.get(found[1])
            if sent is not None and self._edges.late_policy.cast:
                res = hand.reply.res
                assert isinstance(res, FitRes)
                if reason := self._fit(hand, cast_like(sent, res.parameters)):
                    return ReplyAccepted(client_id), f"rejected: {reason}"
            note = misfit(hand.reply, sent, self._edges.late_policy)
        return ReplyAccepted(client_id), note

    def _fit(self, hand: InHand, fitted: Parameters | str | None) -> str:
        """Give a reply its ``fitted`` parameters, if others; or return why they do not fit."""
        if isinstance(fitted, str):
            return fitted
        if fitted is not None and fitted is not parameters_of(hand.reply.res):
            hand.reply = self._edges.store(hand.reply, fitted)
        return ""


def _other_base(reply: Reply, task: Task | None) -> str:
    """Return why a reply does not begin from what its task said; empty: it does, or is older."""
    sent = "" if task is None or task.model is None else task.model.digest
    if not reply.base or reply.base == sent:
        return ""
    return f"it was trained from another model ({reply.base[:12]}...) than its task names"
