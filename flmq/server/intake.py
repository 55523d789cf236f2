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
from flmq.post import Inbox, Letter
from flmq.round import Event, ReplyAccepted, ReplyRejected, Stopped, Word
from flmq.server.events import ClientOutcome, RunEvent
from flmq.server.gather import Gather, Taken
from flmq.server.late import Verdict, late_of
from flmq.server.latecomers import Latecomers
from flmq.server.ledger import LateArrival, Ledger, Settling
from flmq.server.receipts import Receipts
from flmq.server.tasktable import TaskTable
from flmq.server.uploads import Spoiled, Uploads
from flmq.wire import Reply

__all__ = ["Intake"]

_COMMIT_TOGETHER = 64
"""Replies that are written down with one commit, where so many wait."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """A reply that was judged and waits to be entered into the journal."""

    gather: Gather | None
    """None: its phase is an earlier server's."""
    reply: Reply
    size: int
    event: Event
    letter: Letter | None
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
    letter: Letter | None


class Intake:
    """Where whole replies go."""

    def __init__(
        self,
        inbox: Inbox,
        table: TaskTable,
        uploads: Uploads,
        latecomers: Latecomers,
        receipts: Receipts,
        emit: Callable[[RunEvent], None],
        ledger: Ledger | None,
    ) -> None:
        """Take replies from ``inbox``'s letters, and ack them."""
        self._inbox = inbox
        self._table = table
        self._uploads = uploads
        self._latecomers = latecomers
        self._receipts = receipts
        self._emit = emit
        self._ledger = ledger
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

    def take(self, reply: Reply, size: int, letter: Letter | None) -> None:
        """Take in a reply that is all here, and ack ``letter`` once it is dealt with."""
        # In this order: a task is no longer awaited only once it is in the table.
        awaited = self.awaits(reply.task_id)
        known = self._table.find(reply.task_id)
        if known is None and awaited is not None:
            self._take_before_its_phase(awaited[0], reply, size, letter)
            return
        if known is None and self._is_strange(reply):
            self._ack(letter)
            return
        gather = None if known is None else known[0]
        expected = gather is not None and gather.expects(reply.client_id)
        if reply.blob is not None and (expected or self._latecomers.wants(reply)):
            match self._uploads.unpack(reply):
                case Spoiled() as spoiled:
                    self.take_spoiled(spoiled, letter)
                    return
                case Reply() as unpacked:
                    reply = unpacked
        event = ReplyAccepted(reply.client_id) if gather is None else gather.judge(reply)
        self._settle(_Entry(gather, reply, size, event, letter))

    def take_spoiled(self, spoiled: Spoiled, letter: Letter | None) -> None:
        """Take in that a reply came to nothing on its way."""
        known = self._table.find(spoiled.reply.task_id)
        if known is None and self._is_strange(spoiled.reply):
            self._ack(letter)
            return
        gather = None if known is None else known[0]
        event = ReplyRejected(spoiled.reply.client_id, spoiled.reason)
        self._settle(_Entry(gather, spoiled.reply, 0, event, letter))

    def take_early(self) -> None:
        """Take in the replies whose phases have been opened, or closed for good, meanwhile."""
        for _ in range(len(self._early)):
            each = self._early.popleft()
            self.take(each.reply, each.size, each.letter)

    def flush(self) -> None:
        """Enter what waits into the journal; then it counts, and its letters are acked."""
        while self._unwritten:
            entries, self._unwritten = self._unwritten, []
            words = self._write(entries)
            for entry, word in zip(entries, words, strict=True):
                self._count(entry, word)

    def replay(self, gather: Gather, key: PhaseKey) -> None:
        """Feed what an earlier server of the job had taken in, in that order, and its closing."""
        assert self._ledger is not None
        for event, reply, size in self._ledger.replies(key):
            if event is None:
                self._judge_early(gather, key, reply, size)
            else:
                self._feed(gather, Taken(reply, size, self._clock()), event)
        reason = self._ledger.closed(key)
        if reason is not None:
            with self._table.lock:
                self._report(gather.feed(Stopped(reason), self._clock()))

    def replay_rest(self, gather: Gather, key: PhaseKey) -> None:
        """Feed what was written down after `replay` and before the phase was in the table."""
        assert self._ledger is not None
        for event, reply, size in self._ledger.replies(key):
            if event is None and gather.expects(reply.client_id):
                self._judge_early(gather, key, reply, size)

    def awaits(self, task_id: str) -> tuple[PhaseKey, str] | None:
        """Phase and client of a task of an earlier server's, whose phase will be opened again."""
        return None if self._ledger is None else self._ledger.awaits(task_id)

    # -- before its phase --------------------------------------------------------------------

    def _take_before_its_phase(
        self, key: PhaseKey, reply: Reply, size: int, letter: Letter | None
    ) -> None:
        """Keep a reply whose phase will be opened again, for which clients may have to be heard.

        It is written down unjudged, for un-acked ones would fill the prefetch. One that is packed
        cannot be read yet; its client keeps it until the receipt, as all that comes in chunks.
        """
        if reply.blob is None:
            event = ReplyAccepted(reply.client_id)
            self._unwritten.append(_Entry(None, reply, size, event, letter, early=key))
        else:
            self._early.append(_Early(reply, size, None))
            self._ack(letter)

    def _is_strange(self, reply: Reply) -> bool:
        """Whether the journal knows nothing of the phase that a reply answers; then says so.

        Its client hears nothing, and so keeps it: the run's folder may be an older copy, and come
        to that phase yet, or the phase be one of those that no journal keeps, and be opened anew.
        """
        if self._ledger is None or self._latecomers.key_of(reply) is not None:
            return False
        logger.info(
            "a reply of %s to round %d, %s, came before it was asked for: it is taken when it is",
            reply.client_id,
            reply.server_round,
            reply.phase.value,
        )
        return True

    def _judge_early(self, gather: Gather, key: PhaseKey, reply: Reply, size: int) -> None:
        """Have a reply count that was written down before its phase was opened again."""
        assert self._ledger is not None
        outcomes = None
        if gather.expects(reply.client_id):
            event = gather.judge(reply)
            self._ledger.judge(key, event)
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
            verdict = self._latecomers.judge(gather, reply, entry.event)
            if self._latecomers.is_early(gather, verdict):
                self._early.append(_Early(reply, entry.size, entry.letter))
                return
            entry, key = replace(entry, late=verdict), verdict.key
        if self._ledger is None or key is None:
            self._count(entry, None if entry.late is None else entry.late.word)
        else:
            self._unwritten.append(entry)

    def _write(self, entries: Sequence[_Entry]) -> list[Word | None]:
        """Enter all of them with one commit; the words of those that settle nothing."""
        assert self._ledger is not None
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
        words = iter(self._ledger.take_in(settling, arrivals))
        if settling:
            crash_point("server.reply_journalled")
        if any(arrival.verdict.kept for arrival in arrivals):
            crash_point("server.late_journalled")
        return [None if entry.late is None else next(words) for entry in entries]

    # -- counted -----------------------------------------------------------------------------

    def _count(self, entry: _Entry, word: Word | None) -> None:
        if entry.late is not None:
            self._count_late(entry, entry.late, word or entry.late.word)
            return
        gather, reply = entry.gather, entry.reply
        if entry.early is not None:
            if self._table.find(reply.task_id) is None:
                self._ack(entry.letter)
            else:
                # Its phase was opened meanwhile, perhaps before it was written down.
                self.take(reply, entry.size, entry.letter)
            return
        assert gather is not None
        taken = Taken(reply, entry.size, self._clock())
        outcomes = self._feed(gather, taken, entry.event, expected=True)
        if outcomes is None:
            # Its phase has closed, or another reply of its client has come, since it was judged.
            self._settle(entry)
            return
        self._tell(reply, outcomes)
        self._ack(entry.letter)

    def _tell(self, reply: Reply, outcomes: Sequence[ClientOutcome]) -> None:
        """Send the receipt of a reply that settled its task."""
        for outcome in outcomes:
            if outcome.client_id == reply.client_id:
                self._receipts.send(reply, outcome.word, outcome.reason)

    def _count_late(self, entry: _Entry, verdict: Verdict, word: Word) -> None:
        """Count a late or duplicate reply; hand it over to the round that it counts in."""
        reply, note = entry.reply, verdict.note
        number, into = None, None
        taken = Taken(reply, entry.size, self._clock())
        with self._table.lock:
            if verdict.kept and word is Word.LATE:
                late = late_of(reply)
                number, into = self._latecomers.offer(late)
                note = f"counts in round {number}"
            self._report(self._outcomes(entry, taken, verdict, word, note))
        if into is not None:
            into.absorb_late(late, self._table.lock)
        if number is not None:
            reason, word = f"accepted late into round {number}", Word.ACCEPTED
        else:
            reason = _why_dropped(entry, verdict, word)
        self._receipts.send(reply, word, reason, verdict.seconds)
        self._ack(entry.letter)

    def _outcomes(
        self, entry: _Entry, taken: Taken, verdict: Verdict, word: Word, note: str
    ) -> list[ClientOutcome]:
        """What to say of a late or duplicate reply. Call it with the lock held."""
        reply = entry.reply
        if entry.gather is not None:
            outcomes = entry.gather.take(entry.event, taken, note)
            # By the journal it may be known that the task has had its late reply.
            return [replace(each, word=word) for each in outcomes]
        if verdict.key is None:
            return []
        reason = f"{verdict.seconds:.1f} s after the round closed"
        if word is not Word.LATE:
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
        self, gather: Gather, taken: Taken, event: Event, *, expected: bool = False
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

    def _ack(self, letter: Letter | None) -> None:
        if letter is not None:
            self._inbox.ack(letter)


def _why_dropped(entry: _Entry, verdict: Verdict, word: Word) -> str:
    """What its client is told of a reply that counts nowhere."""
    if word is not Word.LATE:
        return ""
    if entry.gather is None and verdict.key is None:
        return verdict.note
    reason = f"late by {verdict.seconds:.1f} s, dropped"
    return f"{reason}: {verdict.note}" if verdict.note else reason
