"""Hearing a job's queues: presence, replies whole and in chunks, requests for models.

One thread takes everything, in order. It may wait for the publisher, never the other way round.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flmq.common.crashpoints import crash_point
from flmq.common.errors import BrokerError, FlmqError, RunError, TransportClosed
from flmq.common.logger import logger
from flmq.journal.records import PhaseKey
from flmq.post import Inbox, Letter, Outbox
from flmq.round import Event, ReplyRejected, Stopped, Word
from flmq.server.events import ClientOutcome, RunEvent
from flmq.server.gather import Gather, Taken
from flmq.server.job import Job
from flmq.server.ledger import Ledger
from flmq.server.models import Models
from flmq.server.presence import PresenceWatcher
from flmq.server.tasktable import TaskTable
from flmq.server.uploads import Spoiled, Uploaded, Uploads
from flmq.transport import TASKS, Address, task_key
from flmq.wire import (
    BlobChunk,
    ModelRequest,
    Presence,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    task_of_upload,
)

__all__ = ["Listener"]

_COMMIT_TOGETHER = 64
"""Replies that are written down with one commit, where so many wait."""
_DAY = 24 * 3600.0
_RECEIPTS = {
    # Whatever the reply says: the client may forget it.
    Word.ACCEPTED: ReceiptOutcome.ACCEPTED,
    Word.FAILED: ReceiptOutcome.ACCEPTED,
    Word.LATE: ReceiptOutcome.LATE,
    Word.REJECTED: ReceiptOutcome.REJECTED,
    Word.DUPLICATE: ReceiptOutcome.DUPLICATE,
}


@dataclass(frozen=True, slots=True)
class _Entry:
    """A reply that was judged and waits to be entered into the journal."""

    gather: Gather
    reply: Reply
    size: int
    event: Event


class Listener:
    """The thread that hears what clients say."""

    def __init__(
        self,
        job: Job,
        inbox: Inbox,
        outbox: Outbox,
        table: TaskTable,
        presence: PresenceWatcher,
        models: Models,
        uploads: Uploads,
        emit: Callable[[RunEvent], None],
        *,
        heartbeat: float,
        ledger: Ledger | None = None,
    ) -> None:
        """Prepare; `start` begins to listen, and the inbox's closing ends it.

        ``heartbeat`` is what clients are asked for, in seconds.
        """
        self._ledger = ledger
        self._heartbeat = heartbeat
        self._job = job
        self._inbox = inbox
        self._outbox = outbox
        self._table = table
        self._presence = presence
        self._models = models
        self._uploads = uploads
        self._emit = emit
        self._clock = time.monotonic
        self._early: list[tuple[Reply, int]] = []
        self._unwritten: list[_Entry] = []
        self._unacked: list[Letter] = []
        self.trouble: FlmqError | None = None
        """Why nothing is heard any more, where that is so."""
        self._thread = threading.Thread(target=self._listen, name="flmq-replies", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which follows the closing of the inbox's consumer."""
        self._thread.join()
        self._uploads.close()

    def _listen(self) -> None:
        next_tick = 0.0
        while self.trouble is None:
            try:
                letter = self._inbox.receive(timeout=self._patience())
                if letter is not None:
                    self._hear_safely(letter)
                if letter is None or len(self._unwritten) >= _COMMIT_TOGETHER:
                    self._flush()
            except TransportClosed:
                return
            except (BrokerError, RunError) as error:
                # Fenced, or nothing can be read or written any more. What is un-acked comes again,
                # to the server that is in charge then.
                self._give_up(error)
                return
            if self._early:
                self._take_early()
            if self._clock() >= next_tick:
                next_tick = self._clock() + 1.0
                self._presence.tick()
                self._uploads.discard_if(self._is_over)

    def _patience(self) -> float:
        """Seconds to wait for a message: none while replies wait to be written down."""
        if self._unwritten:
            return 0.0
        return 0.1 if self._early else 1.0

    def _give_up(self, error: FlmqError) -> None:
        """Without replies no round can close: end those that are open, and say why."""
        self.trouble = error
        with self._table.lock:
            for gather in self._table.open_gathers():
                self._report(gather.feed(Stopped(str(error)), self._clock()))

    def _is_over(self, task_id: str) -> bool:
        known = self._table.find(task_id)
        if known is None:
            return not self._is_awaited(task_id)
        return known[0].done.is_set()

    def _hear_safely(self, letter: Letter) -> None:
        try:
            self._hear(letter)
        except (TransportClosed, BrokerError, RunError):
            raise
        except Exception as error:
            logger.exception("job %s: a message could not be dealt with", self._job.name)
            self._inbox.bury(letter, f"{type(error).__name__}: {error}")

    def _hear(self, letter: Letter) -> None:
        match letter.body:
            case BlobChunk() as chunk:
                self._hear_chunk(chunk)
            case Presence() as presence:
                # Before anybody can ask the client: the greeting must come before the job's end.
                if self._presence.is_new(presence):
                    self._greet(presence)
                self._presence.hear(presence)
            case ModelRequest() as request:
                self._models.publish_again(request.digest)
            case Reply() as reply:
                if not self._hear_reply(letter, reply):
                    return
            case other:
                self._inbox.bury(letter, f"a server takes no {type(other).__name__}")
                return
        if self._unwritten:
            self._unacked.append(letter)
        else:
            self._inbox.ack(letter)

    def _greet(self, presence: Presence) -> None:
        """Answer a process's first hello, so that it knows that this job is alive."""
        self._outbox.send(
            Address(TASKS, task_key(presence.site, presence.client_id)),
            RollCall(self._job.name, self._job.epoch, self._heartbeat),
            mandatory=False,
            expiration=_DAY,
            correlation_id=presence.instance,
        )

    def _hear_reply(self, letter: Letter, reply: Reply) -> bool:
        """Deal with a reply; False if it was buried instead."""
        known = self._table.find(reply.task_id)
        problem = self._identity_problem(reply, known)
        if problem is not None:
            self._refuse(letter, reply, problem)
            return False
        self._presence.seen(reply.client_id)
        expected = known is not None and known[0].expects(reply.client_id)
        if reply.blob is not None and (expected or self._is_awaited(reply.task_id)):
            self._take_upload(self._uploads.begin(reply, reply.blob, letter.bytes))
            return True
        self._take(reply, letter.bytes)
        return True

    def _hear_chunk(self, chunk: BlobChunk) -> None:
        wanted = self._is_wanted(task_of_upload(chunk.name))
        if wanted and not self._uploads.is_open(chunk.name):
            self._uploads.hold(chunk.name, chunk.index, chunk.data)
        else:
            self._take_upload(self._uploads.add(chunk.name, chunk.index, chunk.data))

    def _take_upload(self, upload: Uploaded | Spoiled | None) -> None:
        match upload:
            case Uploaded(reply, size):
                self._take(reply, size)
            case Spoiled() as spoiled:
                self._take_spoiled(spoiled)

    def _is_wanted(self, task_id: str) -> bool:
        """Whether a reply to this task would settle it."""
        known = self._table.find(task_id)
        if known is None:
            return self._is_awaited(task_id)
        return known[0].expects(known[1])

    def _is_awaited(self, task_id: str) -> bool:
        return self._ledger is not None and self._ledger.awaits(task_id)

    def _take(self, reply: Reply, size: int) -> None:
        """Take in a reply that is all here."""
        known = self._table.find(reply.task_id)
        if known is not None:
            self._judge(known[0], reply, size)
        elif self._is_awaited(reply.task_id):
            # Its phase was opened by an earlier server, and will be again in a moment.
            self._early.append((reply, size))
        else:
            self._send_receipt(reply, ReceiptOutcome.LATE, "its round is long over")

    def _judge(self, gather: Gather, reply: Reply, size: int) -> None:
        if reply.blob is not None and gather.expects(reply.client_id):
            match self._uploads.unpack(reply):
                case Spoiled() as spoiled:
                    self._take_spoiled(spoiled)
                    return
                case Reply() as unpacked:
                    reply = unpacked
        self._settle(gather, reply, size, gather.judge(reply))

    def _take_early(self) -> None:
        """Take in the replies whose phases have been opened meanwhile."""
        early, self._early = self._early, []
        for reply, size in early:
            self._take(reply, size)

    def _take_spoiled(self, spoiled: Spoiled) -> None:
        known = self._table.find(spoiled.reply.task_id)
        if known is not None:
            event = ReplyRejected(spoiled.reply.client_id, spoiled.reason)
            self._settle(known[0], spoiled.reply, 0, event)

    def replay(self, gather: Gather, key: PhaseKey) -> None:
        """Feed what an earlier server of the job had taken in, in that order, and its closing."""
        assert self._ledger is not None
        for event, reply, size in self._ledger.replies(key):
            self._feed(gather, Taken(reply, size, self._clock()), event)
        reason = self._ledger.closed(key)
        if reason is not None:
            with self._table.lock:
                self._report(gather.feed(Stopped(reason), self._clock()))

    def _settle(self, gather: Gather, reply: Reply, size: int, event: Event) -> None:
        """Have a reply count, and tell the client what became of it.

        In a job with a journal it is durable before it counts and before it is acked: it waits
        for `_flush`, which enters all that wait with one commit.
        """
        entry = _Entry(gather, reply, size, event)
        if self._ledger is None or gather.key is None or not gather.expects(reply.client_id):
            self._count(entry)
        else:
            self._unwritten.append(entry)

    def _flush(self) -> None:
        """Enter what waits into the journal; then it counts, and its letters are acked."""
        entries, self._unwritten = self._unwritten, []
        letters, self._unacked = self._unacked, []
        if entries and self._ledger is not None:
            self._ledger.contribute(
                [
                    (entry.gather.key, entry.event, entry.reply, entry.size)
                    for entry in entries
                    if entry.gather.key is not None
                ]
            )
            crash_point("server.reply_journalled")
        for entry in entries:
            self._count(entry)
        for letter in letters:
            self._inbox.ack(letter)

    def _count(self, entry: _Entry) -> None:
        gather, reply = entry.gather, entry.reply
        taken = Taken(reply, entry.size, self._clock())
        for outcome in self._feed(gather, taken, entry.event):
            if outcome.client_id == reply.client_id and outcome.word in _RECEIPTS:
                self._send_receipt(reply, _RECEIPTS[outcome.word], outcome.reason, gather)

    def _feed(self, gather: Gather, taken: Taken, event: Event) -> list[ClientOutcome]:
        with self._table.lock:
            outcomes = gather.take(event, taken)
            self._report(outcomes)
        gather.absorb(taken, self._table.lock)
        return outcomes

    def _report(self, outcomes: Sequence[ClientOutcome]) -> None:
        for outcome in outcomes:
            self._emit(outcome)

    def _identity_problem(self, reply: Reply, known: tuple[Gather, str] | None) -> str | None:
        """Why this reply is not from whom it says, to what it says; None if it is."""
        if reply.nonce != self._job.nonce(reply.task_id):
            if known is None:
                return f"answers a task that nobody sent ({reply.task_id})"
            return "does not have its task's nonce"
        if known is None:
            return None  # of a phase that is forgotten here, but of ours: the nonce says so
        gather, asked = known
        if reply.job != self._job.name or reply.phase is not gather.phase:
            return "names another job or phase than its task"
        if reply.client_id != asked:
            return f"answers the task of {asked}"
        return None

    def _refuse(self, letter: Letter, reply: Reply, problem: str) -> None:
        self._send_receipt(reply, ReceiptOutcome.REJECTED, problem)
        self._inbox.bury(letter, f"a reply of {reply.client_id} {problem}")

    def _send_receipt(
        self,
        reply: Reply,
        outcome: ReceiptOutcome,
        reason: str,
        gather: Gather | None = None,
    ) -> None:
        late_by = 0.0
        if outcome is ReceiptOutcome.LATE and gather is not None and gather.closed is not None:
            late_by = self._clock() - gather.closed
        receipt = Receipt(
            task_id=reply.task_id,
            job=self._job.name,
            server_round=reply.server_round,
            phase=reply.phase,
            client_id=reply.client_id,
            outcome=outcome,
            reason=reason,
            late_by_seconds=late_by,
        )
        site = self._presence.site(reply.client_id)
        self._outbox.send(
            Address(TASKS, task_key(site, reply.client_id)),
            receipt,
            mandatory=False,
            expiration=_DAY,
        )
