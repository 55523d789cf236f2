"""Aggregators below this one: who is there, what each was asked, and what it answered.

An order's asks at their sites go on to them as orders of this aggregator's own. Their partial sums
stay in memory until our own is durable, and only then are they told so: until that, each sends its
own again to an aggregator that was killed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from flmq.common.logger import logger
from flmq.messaging import Sender
from flmq.region.partials import identity_problem, open_partial
from flmq.region.work import OrderInWork, Stage
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.partial_sum import PartialRefused
from flmq.transport import TASKS, Address, aggregator_key
from flmq.wire import (
    AggregateOrder,
    AggregatorReport,
    Asked,
    OrderInHand,
    PartialEntry,
    PartialSum,
    Receipt,
    ReceiptOutcome,
    SendPartial,
    aggregator_name,
    derive_nonce,
    task_id,
)
from flmq.wire.entries import MAX_SUM_VALUES, values_at_most
from flmq.wire.regional import MAX_COVERS, list_digest, marked

__all__ = ["PART_WAIT", "Below", "Part", "whole_of"]

_DAY = 24 * 3600.0
PART_WAIT = 10.0
"""Seconds for which aggregators below are waited for once we are to answer at once."""
_EARLIER_MS = 2000
_LATE = "the sum above is made already"


class _Stage(Enum):
    ASKED = "asked"
    IN = "in"
    OUT = "out"


@dataclass(slots=True)
class Part:
    """An order's part at one aggregator below."""

    order: AggregateOrder
    stage: _Stage = _Stage.ASKED
    mean: WeightedMean | None = None
    entries: list[PartialEntry] = field(default_factory=list)
    held: frozenset[str] = frozenset()
    """Tasks that it says it holds."""

    def note(self, orders: Iterable[OrderInHand]) -> None:
        """Note what its aggregator reports to have."""
        if self.stage is not _Stage.ASKED:
            return
        known = self.order.task_id, list_digest(self.order.asks)
        for each in orders:
            if (each.task_id, each.list_digest) == known:
                self.held = marked(self.order.asks, each.held)


class Below:
    """The aggregators of the sites below. For one thread."""

    def __init__(
        self,
        site: str,
        sites: Iterable[str],
        sender: Sender,
        *,
        patience: float,
        clock: Callable[[], float],
    ) -> None:
        """Know the aggregators of ``sites``; one not heard of for ``patience`` seconds is gone."""
        self._site = site
        self._sites = frozenset(sites)
        self._sender = sender
        self._patience = patience
        self._clock = clock
        self._heard: dict[str, tuple[AggregatorReport, float]] = {}
        self._parts: dict[str, dict[str, Part]] = {}
        """By order, then by site."""
        self._left_out: dict[str, str] = {}
        """Ids of parts that are in no sum of ours, and of their orders."""

    def covers(self) -> tuple[str, ...]:
        """Return the sites whose replies reach us: ours, and those of who is there below."""
        below = {site for report in self._there() for site in report.covers}
        # The clients of more sites than a report may name go on to the server.
        return (self._site, *sorted(below - {self._site}))[:MAX_COVERS]

    def hear(self, report: AggregatorReport) -> bool:
        """Note a report; return whether its sender is new, or gone."""
        if report.site not in self._sites:
            return False
        before = self._heard.get(report.site)
        if report.report_seconds == 0:
            self._heard.pop(report.site, None)
            return before is not None
        self._heard[report.site] = report, self._clock()
        for parts in self._parts.values():
            part = parts.get(report.site)
            if part is not None:
                part.note(report.orders)
        return before is None or before[0].covers != report.covers

    def delegate(self, work: OrderInWork) -> None:
        """Send on an order's asks to those below that are there, as the order is now."""
        if work.stage is not Stage.OPEN:
            return
        parts = self._parts.setdefault(work.order.task_id, {})
        for report in self._there():
            covered = set(report.covers) - {self._site}
            asks = tuple(ask for ask in work.asks if (ask.site or work.order.site) in covered)
            part = parts.get(report.site)
            if part is not None and part.stage is not _Stage.ASKED:
                continue
            if asks:
                order = _part_of(work.order, report.site, self._site, asks)
                parts[report.site] = part = part or Part(order)
                part.order = order
                part.note(report.orders)
                self._send(report.site, order)
            elif part is not None:
                part.stage = _Stage.OUT

    def hurry(self, work: OrderInWork) -> None:
        """Ask those below for what they have of an order now."""
        for site, part in self._parts.get(work.order.task_id, {}).items():
            if part.stage is _Stage.ASKED:
                order = part.order
                self._send(site, SendPartial(order.task_id, order.job, order.epoch, order.run))

    def delegated(self, work: OrderInWork) -> set[str]:
        """Return the tasks of an order that no reply is awaited of here.

        They went on below; or nobody was heard for long who could add them up there.
        """
        parts = self._parts.get(work.order.task_id, {}).values()
        tasks = {ask.task_id for part in parts for ask in part.order.asks}
        if self._sites and self._clock() - work.arrived >= self._patience:
            tasks |= {ask.task_id for ask in work.asks if ask.site not in ("", self._site)}
        return tasks

    def tick(self) -> None:
        """Do without those that were not heard of for long; the server asks their clients."""
        there = {report.site for report in self._there()}
        for parts in self._parts.values():
            for site, part in parts.items():
                if part.stage is _Stage.ASKED and site not in there:
                    logger.warning("the aggregator of site %s is gone: done without it", site)
                    part.stage, part.held = _Stage.OUT, frozenset()

    def held(self, work: OrderInWork) -> set[str]:
        """Return the tasks of an order whose replies are held below."""
        parts = self._parts.get(work.order.task_id, {}).values()
        return {task for part in parts if part.stage is not _Stage.OUT for task in part.held}

    def is_waited_for(self, work: OrderInWork) -> bool:
        """Return whether one below has not answered an order yet."""
        parts = self._parts.get(work.order.task_id, {}).values()
        return any(part.stage is _Stage.ASKED for part in parts)

    def problem(self, work: OrderInWork, partial: PartialSum) -> str | None:
        """Return why a partial sum is no answer to what its sender was asked; None if it is."""
        part = self._parts.get(work.order.task_id, {}).get(partial.site)
        if part is None:
            return "was not asked for"
        return identity_problem(part.order, partial)

    def take(self, work: OrderInWork, partial: PartialSum) -> None:
        """Take a complete partial sum in; one that does not fit is refused whole, by name."""
        part = self._parts[work.order.task_id][partial.site]
        if part.stage is _Stage.IN:
            return
        still = {ask.task_id for ask in work.asks}
        order = replace(part.order, asks=tuple(a for a in part.order.asks if a.task_id in still))
        try:
            assert work.spec is not None
            part.mean, part.entries = open_partial(order, partial.parameters, work.spec.specs)
        except PartialRefused as error:
            self.refuse(work, partial, str(error))
            return
        parts = self._parts[work.order.task_id].values()
        listed = (entry for each in parts for entry in each.entries)
        if sum(values_at_most(entry.res) for entry in listed) > MAX_SUM_VALUES // 2:
            part.mean, part.entries = None, []
            self.refuse(work, partial, "has more metrics than fit into one sum with the others'")
            return
        part.stage = _Stage.IN
        part.held = frozenset(entry.task_id for entry in part.entries)

    def refuse(self, work: OrderInWork, partial: PartialSum, reason: str) -> None:
        """Count nothing of a partial sum; the server asks its clients directly."""
        part = self._parts.get(work.order.task_id, {}).get(partial.site)
        if part is not None:
            self._drop(part, reason)

    def sum_of(self, work: OrderInWork) -> tuple[WeightedMean, list[PartialEntry]]:
        """Return all that came from below for an order; what is settled meanwhile is refused."""
        whole, entries = WeightedMean(), []
        still = {ask.task_id for ask in work.asks}
        for part in self._parts.get(work.order.task_id, {}).values():
            if part.mean is None:
                continue
            if any(entry.task_id not in still for entry in part.entries):
                self._drop(part, "lists clients that are settled already")
                continue
            whole.merge(part.mean)
            entries += part.entries
        return whole, entries

    def settle(self, work: OrderInWork) -> None:
        """Tell those below that what they sent is durable, or was too late, and forget it."""
        for part in self._parts.pop(work.order.task_id, {}).values():
            if part.stage is _Stage.IN:
                self.receipt(part.order, ReceiptOutcome.ACCEPTED)
            else:
                self._left_out[part.order.task_id] = work.order.task_id
                self.receipt(part.order, ReceiptOutcome.LATE, _LATE)

    def again(self, partial: PartialSum) -> None:
        """Tell an aggregator below whose partial sum comes when ours is made what became of it."""
        if partial.task_id in self._left_out:
            self.receipt(partial, ReceiptOutcome.LATE, _LATE)
        else:
            self.receipt(partial, ReceiptOutcome.DUPLICATE)

    def forget(self, order_ids: Iterable[str]) -> None:
        """Forget orders, and what came from below for them."""
        gone = set(order_ids)
        for order_id in gone:
            self._parts.pop(order_id, None)
        self._left_out = {part: of for part, of in self._left_out.items() if of not in gone}

    def _drop(self, part: Part, reason: str) -> None:
        logger.warning("the partial sum of site %s is refused: it %s", part.order.site, reason)
        part.stage, part.mean, part.entries, part.held = _Stage.OUT, None, [], frozenset()
        self.receipt(part.order, ReceiptOutcome.REJECTED, reason)

    def receipt(
        self, of: PartialSum | AggregateOrder, outcome: ReceiptOutcome, reason: str = ""
    ) -> None:
        """Tell an aggregator below what became of its partial sum."""
        name = aggregator_name(of.site)
        receipt = Receipt(of.task_id, of.job, of.server_round, of.phase, name, outcome, reason)
        self._send(of.site, receipt)

    # ----------------------------------------------------------------------------------------

    def _there(self) -> list[AggregatorReport]:
        """Return the last reports of who is there."""
        now = self._clock()
        there = [r for r, at in self._heard.values() if now - at < self._patience]
        return sorted(there, key=lambda report: report.site)

    def _send(self, site: str, body: AggregateOrder | SendPartial | Receipt) -> None:
        address = Address(TASKS, aggregator_key(site))
        self._sender.send(address, body, mandatory=False, expiration=_DAY)


def whole_of(partial: PartialSum, orders: Iterable[OrderInWork]) -> OrderInWork | None:
    """Return the order in work that a partial sum is part of; None: of none here."""
    for work in orders:
        if partial.task_id == _part_id(work.order, partial.site):
            return work
    return None


def _part_id(order: AggregateOrder, site: str) -> str:
    """Return the id of an order's part at a site below."""
    return task_id(order.task_id, order.server_round, order.phase, aggregator_name(site))


def _part_of(
    order: AggregateOrder, site: str, above: str, asks: tuple[Asked, ...]
) -> AggregateOrder:
    """Return the order to add up these asks of ``order`` at ``site``, for the one ``above``."""
    part_id = _part_id(order, site)
    deadline = order.deadline_unix_ms
    return replace(
        order,
        task_id=part_id,
        # The same in each life of this aggregator, and as unguessable as the one that we were sent.
        nonce=derive_nonce(order.nonce, part_id),
        site=site,
        asks=tuple(
            replace(ask, site="" if ask.site == site else ask.site or order.site) for ask in asks
        ),
        # What is in time here must be sent earlier there.
        deadline_unix_ms=None if deadline is None else max(0, deadline - _EARLIER_MS),
        answer_to=above,
    )
