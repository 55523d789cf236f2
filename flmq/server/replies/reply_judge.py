"""Check a reply's contents as far as its fate requires."""

from __future__ import annotations

from flmq.round import ReplyAccepted, ReplyRejected
from flmq.round.fates import Fate
from flmq.round.job_events import Claim, ReplyCame
from flmq.server.job.late import misfit, why_not_later
from flmq.server.replies.reply_edges import InHand, ReplyEdges
from flmq.server.replies.task_directory import TaskDirectory

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
            return found[0].claim(found[1], hand.reply), ""
        note = why_not_later(hand.reply)
        if fate is Fate.LATE_WANTED and not note:
            assert self._edges.late_policy is not None
            sent = self._edges.model if found is None else found[0].specs.get(found[1])
            note = misfit(hand.reply, sent, self._edges.late_policy)
        return ReplyAccepted(client_id), note
