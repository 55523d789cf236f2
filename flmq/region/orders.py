"""Deal with orders: take them, answer them in time, and let go of them when they are settled."""

from __future__ import annotations

from flmq.client.serving.epochs import Epochs
from flmq.common.logger import about, logger
from flmq.common.phase import Phase
from flmq.region.answers import Answers, is_time
from flmq.region.below import PART_WAIT, Below
from flmq.region.book import OrderBook
from flmq.region.clocks import Clocks
from flmq.region.intake import Intake
from flmq.region.ledger import Ledger
from flmq.region.work import OrderInWork, Stage
from flmq.wire import AggregateOrder, JobEnded, Receipt, ReceiptOutcome, SendPartial
from flmq.wire.regional import OrderInHand

__all__ = ["Orders"]


class Orders:
    """The orders of one aggregator. For one thread."""

    def __init__(
        self,
        site: str,
        book: OrderBook,
        ledger: Ledger,
        intake: Intake,
        answers: Answers,
        below: Below,
        clocks: Clocks,
    ) -> None:
        """Take orders for ``site``, as they are in ``book``."""
        self._site = site
        self._book = book
        self._ledger = ledger
        self._intake = intake
        self._answers = answers
        self._below = below
        self._clock, self._unix_clock = clocks.monotonic, clocks.unix
        self._epochs = Epochs(clocks.unix)
        for work in book:
            work.arrived, work.is_left_over = clocks.monotonic(), True
            order = work.order
            self._epochs.hear(order.job, order.epoch, order.run)
            self._epochs.takes_over(order.job, order.run)

    # -- messages ----------------------------------------------------------------------------

    def take(self, order: AggregateOrder) -> str:
        """Take an order, or take it as it came again; return why nobody can use it, or nothing."""
        if order.site != self._site:
            return f"an order for the aggregator of site {order.site}"
        if order.phase is not Phase.FIT:
            return f"an order to add up {order.phase.value}: only fit replies are"
        if not self._epochs.hear(order.job, order.epoch, order.run):
            logger.info("an order of an earlier server is left alone", extra=about(order))
            return ""
        if self._epochs.takes_over(order.job, order.run):
            others = set(self._book.of_job(order.job)) - set(
                self._book.of_job(order.job, [order.run])
            )
            self._forget(others, f"job {order.job} was begun anew")
        work = self._book.get(order.task_id)
        if work is None or (work.stage is Stage.PASSED and order.epoch > work.order.epoch):
            self._begin(order)
        elif work.stage is not Stage.PASSED:
            self._renew(work, order)
        return ""

    def send_now(self, wanted: SendPartial) -> None:
        """Answer an order with what there is, and with what those below have at once."""
        work = self._book.get(wanted.task_id)
        if work is None or not self._epochs.hear(wanted.job, wanted.epoch, wanted.run):
            return
        if work.stage is Stage.ANSWERED:
            self._answers.ask_again(work)
        elif work.stage is Stage.OPEN and work.wanted_at is None:
            work.wanted_at = self._clock()
            self._below.hurry(work)

    def settle(self, receipt: Receipt) -> None:
        """Let go of an order, as there is a receipt for it."""
        work = self._book.get(receipt.task_id)
        if work is None or work.stage is Stage.PASSED:
            return
        if receipt.outcome is ReceiptOutcome.REJECTED:
            logger.warning(
                "the partial sum of site %s is refused: %s; its clients are asked directly",
                self._site,
                receipt.reason,
                extra=about(receipt),
            )
        elif receipt.outcome is ReceiptOutcome.LATE:
            logger.warning(
                "the partial sum of site %s is late: its clients' replies go on one by one",
                self._site,
                extra=about(receipt),
            )
        self.pass_on(work)

    def end(self, ended: JobEnded) -> None:
        """Forget what a server ended."""
        runs = self._epochs.end(ended.job, ended.epoch, ended.run)
        if runs:
            self._forget(self._book.of_job(ended.job, runs), f"job {ended.job} is over")

    def pass_on(self, work: OrderInWork) -> None:
        """Add up nothing more of an order: its replies go on as they come."""
        self._intake.give_up({ask.task_id for ask in work.asks})
        work.let_go()
        self._ledger.put(work)
        self._below.settle(work)
        if oldest := self._book.too_many_passed():
            self._forget(oldest)

    # -- time --------------------------------------------------------------------------------

    def tick(self) -> None:
        """Answer what is to be answered now, and send again what has no receipt for long."""
        self._below.tick()
        for work in self._book:
            if work.stage is Stage.OPEN and self._is_due(work):
                self._answers.make(work, *self._below.sum_of(work))
                self._below.settle(work)
            elif work.stage is Stage.ANSWERED:
                self._answers.tick(work)

    def heard_below(self) -> None:
        """Send on what those below can add up, as one of them is new there."""
        for work in self._book:
            self._below.delegate(work)

    def in_hand(self) -> tuple[OrderInHand, ...]:
        """Return what to report of the orders that are not passed."""
        return tuple(
            work.in_hand(self._below.held(work))
            for work in self._book
            if work.stage is not Stage.PASSED
        )

    # ----------------------------------------------------------------------------------------

    def _begin(self, order: AggregateOrder) -> None:
        self._forget([order.task_id])
        for other in self._book:
            # A job's rounds follow each other: its server was answered directly, and is further on.
            if other.stage is Stage.OPEN and _is_before(other.order, order):
                self.pass_on(other)
        while reason := self._book.no_room_for(order):
            oldest = self._book.first_to_go()
            if oldest is None:
                logger.warning("an order is not taken: %s", reason, extra=about(order))
                return
            is_over = oldest.stage is Stage.PASSED
            why = "" if is_over else "it has no receipt, and others need its place"
            self._forget([oldest.order.task_id], why)
        now = self._clock()
        work = OrderInWork(order, arrived=now, renewed=now, longest=order.timeout_seconds or 0.0)
        self._ledger.put(work)
        self._book.add(work)
        self._below.delegate(work)
        logger.info(
            "job %s, round %d: %d replies are to be added up",
            order.job,
            order.server_round,
            len(order.asks),
        )

    def _renew(self, work: OrderInWork, order: AggregateOrder) -> None:
        if order.epoch > work.order.epoch:
            work.times_sent = 0  # to another server
        gone = work.renew(order)
        work.renewed, work.is_left_over = self._clock(), False
        work.longest = max(work.longest, order.timeout_seconds or 0.0)
        self._ledger.put(work)
        self._book.index(work, gone)
        self._intake.give_up(gone)
        self._below.delegate(work)
        if work.stage is Stage.ANSWERED:
            self._answers.ask_again(work)

    def _is_due(self, work: OrderInWork) -> bool:
        waited_for = self._below.is_waited_for(work)
        if not waited_for and not work.missing() - self._below.delegated(work):
            return True
        if is_time(work, self._clock(), self._unix_clock()):
            return True
        since = work.wanted_at
        return since is not None and not (waited_for and self._clock() < since + PART_WAIT)

    def _forget(self, order_ids: set[str] | list[str], why: str = "") -> None:
        for order_id in order_ids:
            work = self._book.get(order_id)
            if work is not None:
                self._intake.give_up({ask.task_id for ask in work.asks})
        self._below.forget(order_ids)
        known = self._book.drop(order_ids)
        self._ledger.forget(known)
        if known and why:
            logger.info("%d orders are forgotten: %s", len(known), why)


def _is_before(one: AggregateOrder, other: AggregateOrder) -> bool:
    """Return whether an order is of an earlier round of the same run."""
    is_same = (one.job, one.run) == (other.job, other.run)
    return is_same and one.server_round < other.server_round
