"""Tell clients what became of their replies, so that they can forget them."""

from __future__ import annotations

from flmq.messaging import Sender
from flmq.round import Outcome
from flmq.server.job_identity import Job
from flmq.server.presence.watcher import PresenceWatcher
from flmq.transport import TASKS, Address, aggregator_key, task_key
from flmq.wire import PartialSum, Receipt, ReceiptOutcome, Reply, aggregator_name

__all__ = ["Receipts"]

_DAY = 24 * 3600.0  # seconds
_OUTCOMES = {
    # All of these mean that the client may forget its reply.
    Outcome.ACCEPTED: ReceiptOutcome.ACCEPTED,
    Outcome.FAILED: ReceiptOutcome.ACCEPTED,
    Outcome.LATE: ReceiptOutcome.LATE,
    Outcome.REJECTED: ReceiptOutcome.REJECTED,
    Outcome.DUPLICATE: ReceiptOutcome.DUPLICATE,
}


class Receipts:
    """Sends receipts to clients' queues, where they expire after a day. Thread-safe."""

    def __init__(self, job: Job, sender: Sender, presence: PresenceWatcher) -> None:
        """Send receipts for ``job``; ``presence`` knows each client's site."""
        self._job = job
        self._sender = sender
        self._presence = presence

    def send(self, reply: Reply, word: Outcome, reason: str, late_by: float = 0.0) -> None:
        """Tell the reply's client its outcome, if that has a receipt; ``late_by`` is in seconds."""
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
        site = self._presence.site(reply.client_id)
        self._send(Address(TASKS, task_key(site, reply.client_id)), receipt)

    def send_to_aggregator(
        self, partial: PartialSum, site: str, word: Outcome, reason: str
    ) -> None:
        """Tell the aggregator of a site the outcome of its partial sum."""
        receipt = Receipt(
            task_id=partial.task_id,
            job=self._job.name,
            server_round=partial.server_round,
            phase=partial.phase,
            client_id=aggregator_name(site),
            outcome=_OUTCOMES[word],
            reason=reason,
        )
        self._send(Address(TASKS, aggregator_key(site)), receipt)

    def _send(self, address: Address, receipt: Receipt) -> None:
        self._sender.send(
            address,
            receipt,
            mandatory=False,
            expiration=_DAY,
            # A broker that restarts loses it: then it is asked for. Written to the disk of
            # each client's own queue, receipts would cost the broker more than all else in a round.
            persistent=False,
        )
