"""Telling clients what became of their replies, so that they can forget them."""

from __future__ import annotations

from flmq.post import Outbox
from flmq.round import Word
from flmq.server.job import Job
from flmq.server.presence import PresenceWatcher
from flmq.transport import TASKS, Address, task_key
from flmq.wire import Receipt, ReceiptOutcome, Reply

__all__ = ["Receipts"]

_DAY = 24 * 3600.0
_OUTCOMES = {
    # Whatever the reply says: the client may forget it.
    Word.ACCEPTED: ReceiptOutcome.ACCEPTED,
    Word.FAILED: ReceiptOutcome.ACCEPTED,
    Word.LATE: ReceiptOutcome.LATE,
    Word.REJECTED: ReceiptOutcome.REJECTED,
    Word.DUPLICATE: ReceiptOutcome.DUPLICATE,
}


class Receipts:
    """Sends receipts to clients' queues, where they wait for a day. Thread-safe."""

    def __init__(self, job: Job, outbox: Outbox, presence: PresenceWatcher) -> None:
        """Send for ``job``; ``presence`` knows each client's site."""
        self._job = job
        self._outbox = outbox
        self._presence = presence

    def send(self, reply: Reply, word: Word, reason: str, late_by: float = 0.0) -> None:
        """Tell the client of ``reply`` what became of it; words without a receipt: nothing."""
        if word not in _OUTCOMES:
            return
        receipt = Receipt(
            task_id=reply.task_id,
            job=self._job.name,
            server_round=reply.server_round,
            phase=reply.phase,
            client_id=reply.client_id,
            outcome=_OUTCOMES[word],
            reason=reason,
            late_by_seconds=late_by,
        )
        self._outbox.send(
            Address(TASKS, task_key(self._presence.site(reply.client_id), reply.client_id)),
            receipt,
            mandatory=False,
            expiration=_DAY,
        )
