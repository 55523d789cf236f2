"""Taking replies in: judged, written down together, counted, answered, and only then acked.

What is here of a reply is all of it. In a job with a journal it is durable before it counts, be it
in time, late or a duplicate. For the listener's thread, but for `replay`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flmq.common.crashpoints import crash_point
from flmq.common.logger import logger
from flmq.journal.records import PhaseKey
from flmq.messaging import Inbox, Incoming
from flmq.observe.events import ClientOutcome, RunEvent
from flmq.round import Event, Outcome, ReplyAccepted, ReplyRejected, Stopped
from flmq.server.asks.phase_in_flight import PhaseInFlight, Taken
from flmq.server.asks.task_table import TaskTable
from flmq.server.replies.late import Verdict, late_of
from flmq.server.replies.late_replies import LateReplyDesk
from flmq.server.replies.receipts import Receipts
from flmq.server.replies.uploads import Spoiled, Uploads
from flmq.server.resumption.job_journal import JobJournal, LateArrival, Settling
from flmq.wire import Reply

__all__ = ["Intake"]

_COMMIT_TOGETHER = 64
"""Replies that are written down with one commit, where so many wait."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A reply that was judged and waits to be entered into the journal."""

    gather: PhaseInFlight | None
    """None: its phase is an earlier server's."""
    reply: Reply
    size: int
    event: Event
    incoming: Incoming | None
    """What to ack then; None: nothing."""
    early: PhaseKey | None = None
    """Its phase, where that has not been opened again since an earlier server left it."""
    late: Verdict | None = None
    """What it is, where it does not settle its task."""


@dataclass(frozen=True, slots=True)
class _Early:
    """A reply that is here before its phase is, or before its phase has closed for good."""

    reply: Reply
    size: int
    incoming: Incoming | None


class Intake:
    """Where whole replies go."""

    def __init__(
        self,
        inbox: Inbox,
        table: TaskTable,
        uploads: Uploads,
        late_replies: LateReplyDesk,
        receipts: Receipts,
        emit: Callable[[RunEvent], None],
        job_journal: JobJournal | None,
    ) -> None:
        """Take replies from ``inbox``'s letters, and ack them."""
        self._inbox = inbox
        self._table = table
        self._uploads = uploads
        self._late_replies = late_replies
        self._receipts = receipts
        self._emit = emit
        self._job_journal = job_journal
        self._clock = time.monotonic
        self._early: deque[_Early] = deque()
        self._unwritten: list[_Entry] = []

    @property
    def is_full(self) -> bool:
        """Whether so many replies wait to be written down that it is time."""
        return len(self._unwritten) >= _COMMIT_TOGETHER

    @property
    def patience(self) -> float:
        """Seconds to wait for a message: none while replies wait to be written down."""
        if self._unwritten:
            return 0.0
        return 0.1 if self._early else 1.0

    def take(self, reply: Reply, size: int, incoming: Incoming | None) -> None:
        """Take in a reply that is all here, and ack ``incoming`` once it is dealt with."""
        # In this order: a task is no longer awaited only once it is in the table.
        awaited = self.awaits(reply.task_id)
        known = self._table.find(reply.task_id)
        if known is None and awaited is not None:
            self._take_before_its_phase(awaited[0], reply, size, incoming)
            return
        if known is None and self._is_strange(reply):
            self._ack(incoming)
            return
        gather = None if known is None else known[0]
        expected = gather is not None and gather.expects(reply.client_id)
        if reply.blob is not None and (expected or self._late_replies.wants(reply)):
            match self._uploads.unpack(reply):
                case Spoiled() as spoiled:
                    self.take_spoiled(spoiled, incoming)
                    return
                case Reply() as unpacked:
                    reply = unpacked
        event = ReplyAccepted(reply.client_id) if gather is None else gather.judge(reply)
        self._settle(_Entry(gather, reply, size, event, incoming))

    def take_spoiled(self, spoiled: Spoiled, incoming: Incoming | None) -> None:
        """Take in that a reply came to nothing on its way."""
        known = self._table.find(spoiled.reply.task_id)
        if known is None and self._is_strange(spoiled.reply):
            self._ack(incoming)
            return
        gather = None if known is None else known[0]
        event = ReplyRejected(spoiled.reply.client_id, spoiled.reason)
        self._settle(_Entry(gather, spoiled.reply, 0, event, incoming))

    def take_early(self) -> None:
        """Take in the replies whose phases have been opened, or closed for good, meanwhile."""
        for _ in range(len(self._early)):
            each = self._early.popleft()
            self.take(each.reply, each.size, each.incoming)

    def flush(self) -> None:
        """Enter what waits into the journal; then it counts, and its letters are acked."""
        while self._unwritten:
            entries, self._unwritten = self._unwritten, []
            words = self._write(entries)
            for entry, word in zip(entries, words, strict=True):
                self._count(entry, word)

    def replay(self, gather: PhaseInFlight, key: PhaseKey) -> None:
        """Feed what an earlier server of the job had taken in, in that order, and its closing."""
        assert self._job_journal is not None
        for event, reply, size in self._job_journal.replies(key):
            if event is None:
                self._judge_early(gather, key, reply, size)
            else:
                self._feed(gather, Taken(reply, size, self._clock()), event)
        reason = self._job_journal.closed(key)
        if reason is not None:
            with self._table.lock:
                self._report(gather.feed(Stopped(reason), self._clock()))

    def replay_rest(self, gather: PhaseInFlight, key: PhaseKey) -> None:
        """Feed what was written down after `replay` and before the phase was in the table."""
        assert self._job_journal is not None
        for event, reply, size in self._job_journal.replies(key):
            if event is None and gather.expects(reply.client_id):
                self._judge_early(gather, key, reply, size)

    def awaits(self, task_id: str) -> tuple[PhaseKey, str] | None:
        """Phase and client of a task of an earlier server's, whose phase will be opened again."""
        return None if self._job_journal is None else self._job_journal.awaits(task_id)

    # -- before its phase --------------------------------------------------------------------

    def _take_before_its_phase(
        self, key: PhaseKey, reply: Reply, size: int, incoming: Incoming | None
    ) -> None:
        """Keep a reply whose phase will be opened again, for which clients may have to be heard.

        It is written down unjudged, for un-acked ones would fill the prefetch. One that is packed
        cannot be read yet; its client keeps it until the receipt, as all that comes in chunks.
        """
        if reply.blob is None:
            event = ReplyAccepted(reply.client_id)
            self._unwritten.append(_Entry(None, reply, size, event, incoming, early=key))
        else:
            self._early.append(_Early(reply, size, None))
            self._ack(incoming)

    def _is_strange(self, reply: Reply) -> bool:
        """Whether the journal knows nothing of the phase that a reply answers; then says so.

        Its client hears nothing, and so keeps it: the run's folder may be an older copy, and come
        to that phase yet, or the phase be one of those that no journal keeps, and be opened anew.
        """
        if self._job_journal is None or self._late_replies.key_of(reply) is not None:
            return False
        logger.info(
            "a reply of %s to round %d, %s, came before it was asked for: it is taken when it is",
            reply.client_id,
            reply.server_round,
            reply.phase.value,
        )
        return True

    def _judge_early(self, gather: PhaseInFlight, key: PhaseKey, reply: Reply, size: int) -> None:
        """Have a reply count that was written down before its phase was opened again."""
        assert self._job_journal is not None
        outcomes = None
        if gather.expects(reply.client_id):
            event = gather.judge(reply)
            self._job_journal.judge(key, event)
            taken = Taken(reply, size, self._clock())
            outcomes = self._feed(gather, taken, event, expected=True)
        if outcomes is None:
            # Its phase has closed: it may be late, which the listener's thread finds out.
            self._early.append(_Early(reply, size, None))
        else:
            self._tell(reply, outcomes)

    # -- judged ------------------------------------------------------------------------------

    def _settle(self, entry: _Entry) -> None:
        """Have a reply that was judged written down, and then count."""
        gather, reply = entry.gather, entry.reply
        key = None if gather is None else gather.key
        if gather is None or not gather.expects(reply.client_id):
            verdict = self._late_replies.judge(gather, reply, entry.event)
            if self._late_replies.is_early(gather, verdict):
                self._early.append(_Early(reply, entry.size, entry.incoming))
                return
            entry, key = replace(entry, late=verdict), verdict.key
        if self._job_journal is None or key is None:
            self._count(entry, None if entry.late is None else entry.late.outcome)
        else:
            self._unwritten.append(entry)

    def _write(self, entries: Sequence[_Entry]) -> list[Outcome | None]:
        """Enter all of them with one commit; the words of those that settle nothing."""
        assert self._job_journal is not None
        settling: list[Settling] = []
        arrivals: list[LateArrival] = []
        for entry in entries:
            if entry.early is not None:
                settling.append(Settling(entry.early, None, entry.reply, entry.size))
            elif entry.late is not None:
                assert entry.late.key is not None
                arrivals.append(LateArrival(entry.reply, entry.size, entry.late))
            else:
                assert entry.gather is not None
                assert entry.gather.key is not None
                settling.append(Settling(entry.gather.key, entry.event, entry.reply, entry.size))
        words = iter(self._job_journal.take_in(settling, arrivals))
        if settling:
            crash_point("server.reply_journalled")
        if any(arrival.verdict.kept for arrival in arrivals):
            crash_point("server.late_journalled")
        return [None if entry.late is None else next(words) for entry in entries]

    # -- counted -----------------------------------------------------------------------------

    def _count(self, entry: _Entry, word: Outcome | None) -> None:
        if entry.late is not None:
            self._count_late(entry, entry.late, word or entry.late.outcome)
            return
        gather, reply = entry.gather, entry.reply
        if entry.early is not None:
            if self._table.find(reply.task_id) is None:
                self._ack(entry.incoming)
            else:
                # Its phase was opened meanwhile, perhaps before it was written down.
                self.take(reply, entry.size, entry.incoming)
            return
        assert gather is not None
        taken = Taken(reply, entry.size, self._clock())
        outcomes = self._feed(gather, taken, entry.event, expected=True)
        if outcomes is None:
            # Its phase has closed, or another reply of its client has come, since it was judged.
            self._settle(entry)
            return
        self._tell(reply, outcomes)
        self._ack(entry.incoming)

    def _tell(self, reply: Reply, outcomes: Sequence[ClientOutcome]) -> None:
        """Send the receipt of a reply that settled its task."""
        for outcome in outcomes:
            if outcome.client_id == reply.client_id:
                self._receipts.send(reply, outcome.outcome, outcome.reason)

    def _count_late(self, entry: _Entry, verdict: Verdict, word: Outcome) -> None:
        """Count a late or duplicate reply; hand it over to the round that it counts in."""
        reply, note = entry.reply, verdict.note
        number, into = None, None
        taken = Taken(reply, entry.size, self._clock())
        with self._table.lock:
            if verdict.kept and word is Outcome.LATE:
                late = late_of(reply)
                number, into = self._late_replies.offer(late)
                note = f"counts in round {number}"
            self._report(self._outcomes(entry, taken, verdict, word, note))
        if into is not None:
            into.absorb_late(late, self._table.lock)
        if number is not None:
            reason, word = f"accepted late into round {number}", Outcome.ACCEPTED
        else:
            reason = _why_dropped(entry, verdict, word)
        self._receipts.send(reply, word, reason, verdict.seconds)
        self._ack(entry.incoming)

    def _outcomes(
        self, entry: _Entry, taken: Taken, verdict: Verdict, word: Outcome, note: str
    ) -> list[ClientOutcome]:
        """What to say of a late or duplicate reply. Call it with the lock held."""
        reply = entry.reply
        if entry.gather is not None:
            outcomes = entry.gather.take(entry.event, taken, note)
            # By the journal it may be known that the task has had its late reply.
            return [replace(each, outcome=word) for each in outcomes]
        if verdict.key is None:
            return []
        reason = f"{verdict.seconds:.1f} s after the round closed"
        if word is not Outcome.LATE:
            reason = ""
        elif note:
            reason = f"{reason}, {note}"
        return [
            ClientOutcome(
                reply.server_round,
                reply.phase,
                reply.client_id,
                word,
                reason,
                num_examples=getattr(reply.res, "num_examples", None),
                bytes_up=entry.size,
            )
        ]

    def _feed(
        self, gather: PhaseInFlight, taken: Taken, event: Event, *, expected: bool = False
    ) -> list[ClientOutcome] | None:
        """Feed a reply; with ``expected``, None and nothing done where it would settle nothing."""
        with self._table.lock:
            if expected and not gather.expects(taken.reply.client_id):
                return None
            outcomes = gather.take(event, taken)
            self._report(outcomes)
        gather.absorb(taken, self._table.lock)
        return outcomes

    def _report(self, outcomes: Sequence[ClientOutcome]) -> None:
        for outcome in outcomes:
            self._emit(outcome)

    def _ack(self, incoming: Incoming | None) -> None:
        if incoming is not None:
            self._inbox.ack(incoming)


def _why_dropped(entry: _Entry, verdict: Verdict, word: Outcome) -> str:
    """What its client is told of a reply that counts nowhere."""
    if word is not Outcome.LATE:
        return ""
    if entry.gather is None and verdict.key is None:
        return verdict.note
    reason = f"late by {verdict.seconds:.1f} s, dropped"
    return f"{reason}: {verdict.note}" if verdict.note else reason
