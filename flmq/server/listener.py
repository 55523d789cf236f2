"""Hearing a job's queues: presence, replies whole and in chunks, requests for models.

One thread takes everything, in order. It may wait for the publisher, never the other way round.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from flmq.common.errors import BrokerError, TransportClosed
from flmq.common.logger import logger
from flmq.post import Inbox, Letter, Outbox
from flmq.round import Event, ReplyRejected, Stopped, Word
from flmq.server.events import ClientOutcome, RunEvent
from flmq.server.gather import Gather, Taken
from flmq.server.job import Job
from flmq.server.models import Models
from flmq.server.presence import PresenceWatcher
from flmq.server.tasktable import TaskTable
from flmq.server.uploads import Spoiled, Uploaded, Uploads
from flmq.transport import TASKS, Address, task_key
from flmq.wire import BlobChunk, ModelRequest, Presence, Receipt, ReceiptOutcome, Reply, RollCall

__all__ = ["Listener"]

_DAY = 24 * 3600.0
_RECEIPTS = {
    # Whatever the reply says: the client may forget it.
    Word.ACCEPTED: ReceiptOutcome.ACCEPTED,
    Word.FAILED: ReceiptOutcome.ACCEPTED,
    Word.LATE: ReceiptOutcome.LATE,
    Word.REJECTED: ReceiptOutcome.REJECTED,
    Word.DUPLICATE: ReceiptOutcome.DUPLICATE,
}


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
    ) -> None:
        """Prepare; `start` begins to listen, and the inbox's closing ends it.

        ``heartbeat`` is what clients are asked for, in seconds.
        """
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
        self.trouble: BrokerError | None = None
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
        while True:
            try:
                letter = self._inbox.receive(timeout=1.0)
            except TransportClosed:
                return
            except BrokerError as error:
                self._give_up(error)
                return
            if letter is not None:
                self._hear_safely(letter)
            if self._clock() >= next_tick:
                next_tick = self._clock() + 1.0
                self._presence.tick()
                self._uploads.discard_if(self._is_over)

    def _give_up(self, error: BrokerError) -> None:
        """Without replies no round can close: end those that are open, and say why."""
        self.trouble = error
        with self._table.lock:
            for gather in self._table.open_gathers():
                self._report(gather.feed(Stopped(str(error)), self._clock()))

    def _is_over(self, task_id: str) -> bool:
        known = self._table.find(task_id)
        return known is None or known[0].done.is_set()

    def _hear_safely(self, letter: Letter) -> None:
        try:
            self._hear(letter)
        except TransportClosed:
            return
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
        if known is None:
            self._refuse(letter, reply, f"answers a task that nobody sent ({reply.task_id})")
            return False
        gather, asked = known
        problem = self._identity_problem(reply, gather, asked)
        if problem is not None:
            self._refuse(letter, reply, problem)
            return False
        self._presence.seen(reply.client_id)
        if reply.blob is None or not gather.expects(reply.client_id):
            self._take(gather, reply, letter.bytes)
            return True
        spoiled = self._uploads.begin(reply, reply.blob, letter.bytes)
        if spoiled is not None:
            self._take_spoiled(spoiled)
        return True

    def _hear_chunk(self, chunk: BlobChunk) -> None:
        match self._uploads.add(chunk.name, chunk.index, chunk.data):
            case Uploaded(reply, size):
                known = self._table.find(reply.task_id)
                if known is not None:
                    self._take(known[0], reply, size)
            case Spoiled() as spoiled:
                self._take_spoiled(spoiled)

    def _take(self, gather: Gather, reply: Reply, size: int) -> None:
        self._settle(gather, reply, size, gather.judge(reply))

    def _take_spoiled(self, spoiled: Spoiled) -> None:
        known = self._table.find(spoiled.reply.task_id)
        if known is not None:
            event = ReplyRejected(spoiled.reply.client_id, spoiled.reason)
            self._settle(known[0], spoiled.reply, 0, event)

    def _settle(self, gather: Gather, reply: Reply, size: int, event: Event) -> None:
        """Feed a reply to its round, and tell the client what became of it."""
        taken = Taken(reply, size, self._clock())
        with self._table.lock:
            outcomes = gather.take(event, taken)
            self._report(outcomes)
        gather.absorb(taken, self._table.lock)
        for outcome in outcomes:
            if outcome.client_id == reply.client_id and outcome.word in _RECEIPTS:
                self._send_receipt(reply, _RECEIPTS[outcome.word], outcome.reason, gather)

    def _report(self, outcomes: Sequence[ClientOutcome]) -> None:
        for outcome in outcomes:
            self._emit(outcome)

    def _identity_problem(self, reply: Reply, gather: Gather, asked: str) -> str | None:
        """Why this reply is not from whom it says, to what it says; None if it is."""
        if reply.job != self._job.name or reply.phase is not gather.phase:
            return "names another job or phase than its task"
        if reply.client_id != asked:
            return f"answers the task of {asked}"
        if reply.nonce != self._job.nonce(reply.task_id):
            return "does not have its task's nonce"
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
