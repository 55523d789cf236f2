"""Answer orders: make the partial sum once, and send the same bytes until there is a receipt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace

from flmq.common.crashpoints import crash_point
from flmq.common.errors import MessageTooLarge
from flmq.common.logger import logger
from flmq.common.typing import Parameters
from flmq.messaging import Sender
from flmq.region.ledger import Ledger
from flmq.region.work import Held, OrderInWork, Stage
from flmq.server.strategy.combine import WeightedMean
from flmq.transport import (
    AGGREGATOR,
    PARTIALS,
    REPLIES,
    UPLOADS,
    Address,
    PublishOutcome,
    partial_key,
    reply_key,
    size_key,
)
from flmq.wire import INLINE_BYTES, PartialEntry, PartialSum, ref_of, size_of, upload_name
from flmq.wire.entries import write_entries
from flmq.wire.regional import PARTIAL_TENSORS

__all__ = ["Answers", "is_time"]

_AGAIN, _LONGEST = 60.0, 600.0
"""Seconds without a receipt after which a partial sum is sent again: ever more, up to so many."""
_NOT_SOONER = 5.0
"""Seconds within which an order that comes again does not make it sent again."""
_LEAST_MARGIN, _MARGIN = 1.0, 0.1


def is_time(work: OrderInWork, now: float, unix_now: float) -> bool:
    """Return whether an order is to be answered with what there is, so that it is in time.

    That is at its deadline less a second or a tenth of its time, whichever is more, but no more
    than half of it; where our clock is behind, no later than if it had been opened when it came.
    """
    order = work.order
    if order.deadline_unix_ms is None:
        return False
    deadline, margin, given = order.deadline_unix_ms / 1000, _LEAST_MARGIN, order.timeout_seconds
    if given is None:
        return unix_now >= deadline - margin
    margin = min(max(margin, _MARGIN * max(given, work.longest)), given / 2)
    if not work.is_left_over and now - work.renewed >= given - margin:
        return True
    return unix_now >= deadline - margin


class Answers:
    """The partial sums of this aggregator. For one thread."""

    def __init__(
        self, site: str, sender: Sender, ledger: Ledger, clock: Callable[[], float]
    ) -> None:
        """Send the partial sums of ``site``; ``clock`` gives seconds."""
        self._site = site
        self._sender = sender
        self._ledger = ledger
        self._clock = clock

    def make(
        self,
        work: OrderInWork,
        below: WeightedMean | None = None,
        entries: Sequence[PartialEntry] = (),
    ) -> None:
        """Make an order's partial sum of what is held, and of what came from below; send it.

        Raises:
            LedgerNotWritable: it cannot be made durable; nothing is sent.
        """
        mean = work.mean
        if below is not None:
            mean.merge(below)
        of_all = sorted([*work.entries(), *entries], key=lambda entry: entry.task_id)
        tensors = [b"".join(mean.to_pieces()), write_entries(of_all)]
        work.partial = self._ledger.answer(work, Parameters(tensors, PARTIAL_TENSORS))
        work.stage = Stage.ANSWERED
        work.held = {entry.task_id: Held(entry) for entry in of_all}
        work.forget_sum()
        logger.info(
            "round %d of job %s: %d of %d replies are added up, and sent on as one",
            work.order.server_round,
            work.order.job,
            len(of_all),
            len(work.asks),
        )
        self.send(work)

    def send(self, work: OrderInWork) -> None:
        """Send an order's partial sum, whole or with its tensors in chunks behind it."""
        order, parameters = work.order, work.partial
        assert parameters is not None
        work.sent_at = self._clock()
        work.times_sent += 1
        partial = PartialSum(
            task_id=order.task_id,
            job=order.job,
            server_round=order.server_round,
            phase=order.phase,
            site=self._site,
            epoch=order.epoch,
            nonce=order.nonce,
            run=order.run,
            parameters=parameters,
        )
        envelopes, chunks = self._addresses(work)
        if size_of(parameters) <= INLINE_BYTES:
            whole = Parameters([bytes(tensor) for tensor in parameters.tensors], PARTIAL_TENSORS)
            self._sender.send(
                envelopes, replace(partial, parameters=whole), message_id=order.task_id
            )
            crash_point("aggregator.partial_sent")
            return
        nobody = Address(UPLOADS, size_key(self._site, AGGREGATOR))
        ref = replace(ref_of(parameters), chunk_bytes=self._sender.chunk_bytes(nobody))
        head = replace(partial, parameters=Parameters([], PARTIAL_TENSORS), blob=ref)
        self._sender.send(envelopes, head, message_id=order.task_id)
        crash_point("aggregator.partial_announced")
        name = upload_name(order.task_id, ref)
        sent = self._sender.send_blob(chunks, ref, name, parameters.tensors)
        sent.outcome.add_done_callback(self._sent)
        crash_point("aggregator.partial_sent")

    def _sent(self, outcome: Future[PublishOutcome]) -> None:
        """Cut it smaller the next time, if the broker does not take its chunks."""
        if isinstance(error := outcome.exception(), MessageTooLarge):
            self._sender.cut_smaller(error)

    def ask_again(self, work: OrderInWork) -> None:
        """Send a partial sum again, as its order came again; not if it was sent just now.

        A large one may be on its way for long, and each copy holds up what comes behind it.
        """
        assert work.partial is not None
        is_small = size_of(work.partial) <= INLINE_BYTES
        self._send_after(_NOT_SOONER if is_small or not work.times_sent else _wait(work), work)

    def tick(self, work: OrderInWork) -> None:
        """Send a partial sum again that has no receipt for long."""
        self._send_after(_wait(work), work)

    def _send_after(self, seconds: float, work: OrderInWork) -> None:
        if work.sent_at is None or self._clock() - work.sent_at >= seconds:
            self.send(work)

    def _addresses(self, work: OrderInWork) -> tuple[Address, Address]:
        """Return where the envelope goes, and where the chunks."""
        order = work.order
        if order.answer_to:
            above = Address(PARTIALS, partial_key(order.answer_to, self._site, order.job))
            return above, above
        key = reply_key(self._site, AGGREGATOR, order.job)
        return Address(REPLIES, key), Address(UPLOADS, key)


def _wait(work: OrderInWork) -> float:
    """Return the seconds after which a partial sum that was sent is sent again."""
    return min(_LONGEST, _AGAIN * 2.0 ** max(0, work.times_sent - 1))
