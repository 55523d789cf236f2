"""The orders in work, and which of them a task belongs to. Pure: no clock, no socket, no disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from flmq.region.work import OrderInWork, Stage
from flmq.wire import AggregateOrder

__all__ = ["MAX_ASKS", "MAX_OPEN", "OrderBook"]

MAX_OPEN = 64
"""Most orders that are not passed."""
MAX_ASKS = 200_000
"""Most asks of all orders."""
_MAX_PASSED = 64
"""Most orders remembered so that their stragglers are passed on at once."""


class OrderBook:
    """Orders by id, and their asks by task."""

    def __init__(self, orders: Iterable[OrderInWork]) -> None:
        """Begin with ``orders``, the oldest first."""
        self._orders: dict[str, OrderInWork] = {}
        self._of_task: dict[str, str] = {}
        for work in orders:
            self.add(work)

    def __iter__(self) -> Iterator[OrderInWork]:
        """Yield the orders, the oldest first."""
        return iter(list(self._orders.values()))

    def get(self, order_id: str) -> OrderInWork | None:
        """Return an order; None if it is not known."""
        return self._orders.get(order_id)

    def of_task(self, task_id: str) -> OrderInWork | None:
        """Return the order that a task is an ask of; None: of none here."""
        order_id = self._of_task.get(task_id)
        return None if order_id is None else self._orders.get(order_id)

    def no_room_for(self, order: AggregateOrder) -> str:
        """Return why one more order is too much; empty if it is not."""
        live = [work for work in self if work.stage is not Stage.PASSED]
        if len(live) >= MAX_OPEN:
            return f"{len(live)} orders are in work, the most there may be"
        asks = sum(len(work.asks) for work in self) + len(order.asks)
        return f"orders of {asks} asks: {MAX_ASKS} at most" if asks > MAX_ASKS else ""

    def first_to_go(self) -> OrderInWork | None:
        """Return the oldest order that is over, or else the oldest that is answered."""
        for stage in (Stage.PASSED, Stage.ANSWERED):
            for work in self:
                if work.stage is stage:
                    return work
        return None

    def add(self, work: OrderInWork) -> None:
        """Add an order, in place of one with its id."""
        self._orders[work.order.task_id] = work
        self.index(work)

    def index(self, work: OrderInWork, gone: Iterable[str] = ()) -> None:
        """Note which tasks an order lists, and which are ``gone`` from it."""
        for task_id in gone:
            self._of_task.pop(task_id, None)
        for ask in work.asks:
            self._of_task[ask.task_id] = work.order.task_id

    def drop(self, order_ids: Iterable[str]) -> list[str]:
        """Forget orders; return those that were known."""
        known = [order_id for order_id in order_ids if order_id in self._orders]
        for order_id in known:
            for ask in self._orders.pop(order_id).asks:
                self._of_task.pop(ask.task_id, None)
        return known

    def too_many_passed(self) -> list[str]:
        """Return the oldest of the orders that are remembered only for their stragglers."""
        passed = [work.order.task_id for work in self if work.stage is Stage.PASSED]
        return passed[:-_MAX_PASSED]

    def of_job(self, job: str, runs: Iterable[str] | None = None) -> list[str]:
        """Return the orders of a job, of these runs (None: of all)."""
        wanted = None if runs is None else set(runs)
        return [
            work.order.task_id
            for work in self
            if work.order.job == job and (wanted is None or work.order.run in wanted)
        ]
