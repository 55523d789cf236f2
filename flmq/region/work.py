"""An order in work: what is asked of an aggregator, and what it has of it. No clock, no socket.

::

    OPEN      replies are taken in
    ANSWERED  the partial sum is made and stays as it is: it is sent until there is a receipt
    PASSED    nothing is added up any more: further replies go to whom the order is of
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import Enum

from flmq.common.errors import AggregationError
from flmq.common.typing import FitRes, Parameters
from flmq.server.strategy.combine import WeightedMean
from flmq.server.strategy.reply_check import ParametersSpec
from flmq.wire import AggregateOrder, Asked, EntryOutcome, PartialEntry, Reply
from flmq.wire.entries import MAX_SUM_VALUES, values_at_most
from flmq.wire.regional import OrderInHand, bitmap, list_digest

__all__ = ["Held", "OrderInWork", "Stage"]

_MOST_VALUES = MAX_SUM_VALUES // 2
"""Of all entries of a site's own clients; the rest is for what comes from below."""


class Stage(Enum):
    """What is done with replies to an order."""

    OPEN = "open"
    ANSWERED = "answered"
    PASSED = "passed"


@dataclass(frozen=True, slots=True)
class Held:
    """A reply that is held, and what became of it."""

    entry: PartialEntry
    reply: Reply | None = None
    """With its parameters, if it is accepted; else None."""


@dataclass(slots=True)
class OrderInWork:
    """One order, and the replies to it."""

    order: AggregateOrder
    stage: Stage = Stage.OPEN
    held: dict[str, Held] = field(default_factory=dict)
    """By task id: replies of this site's clients."""
    partial: Parameters | None = None
    """The partial sum, once it is made; None again once it is settled."""
    arrived: float = 0.0
    """When it came to this process, in monotonic seconds."""
    renewed: float = 0.0
    """When it last came, in monotonic seconds: what it says of the time left is as of then."""
    longest: float = 0.0
    """The most seconds that it ever had left."""
    is_left_over: bool = False
    """Whether it came to an earlier process."""
    wanted_at: float | None = None
    """Since when to answer with what there is, in monotonic seconds; None: when all has come."""
    model: Parameters | None = None
    """What the clients were sent; None: not read yet."""
    spec: ParametersSpec | None = None
    sent_at: float | None = None
    """When the partial sum was last sent, in monotonic seconds."""
    times_sent: int = 0
    """How often it was sent to the server that is in charge."""
    passed_on: set[str] = field(default_factory=set)
    """Tasks whose replies are not added up here, as their entries would be too many values."""
    _mean: WeightedMean | None = None
    _values: dict[str, int] | None = None
    """Of each task's entry, held or on its way, at most; None: not counted."""
    _total: int = 0

    @property
    def asks(self) -> tuple[Asked, ...]:
        """The asks still awaited, as the order lists them."""
        return self.order.asks

    def asked(self, task_id: str) -> Asked | None:
        """Return the ask of a task; None if it is none of this order's any more."""
        return self._by_task().get(task_id)

    def renew(self, order: AggregateOrder) -> set[str]:
        """Take the order as it came again; return the tasks that it leaves out.

        It never adds asks: what the list had not before is left out. An order that is answered
        keeps its list, as what it was answered with is in it.
        """
        if self.stage is not Stage.OPEN:
            self.order = replace(order, asks=self.order.asks)
            return set()
        still = {ask.task_id for ask in order.asks}
        gone = {ask.task_id for ask in self.asks} - still
        self.order = replace(order, asks=tuple(a for a in self.asks if a.task_id in still))
        self._index = {}
        for task_id in gone:
            if self.held.pop(task_id, None) is not None:
                self._mean = None  # it is added up already: make the sum again without it
            if self._values is not None:
                self._total -= self._values.pop(task_id, 0)
        return gone

    def add(self, held: Held) -> Held:
        """Hold a reply, and add it up if it is accepted; return it, rejected if it does not fit."""
        mean = self.mean
        if held.reply is not None:
            assert isinstance(held.reply.res, FitRes)
            try:
                mean.add(held.entry.client_id, held.reply.res)
            except AggregationError as error:
                entry = replace(
                    held.entry, outcome=EntryOutcome.REJECTED, reason=str(error), digest=""
                )
                held = Held(entry)
        self.held[held.entry.task_id] = held
        return held

    def has_room_for(self, reply: Reply) -> bool:
        """Return whether the entry of a reply fits the sum; if so, its room is kept for it."""
        if self._values is None:
            self._values = {each: values_at_most(of.entry.res) for each, of in self.held.items()}
            self._total = sum(self._values.values())
        if reply.task_id in self._values:
            return True
        values = values_at_most(reply.res)
        if self._total + values > _MOST_VALUES:
            return False
        self._values[reply.task_id] = values
        self._total += values
        return True

    @property
    def mean(self) -> WeightedMean:
        """The sum of what is held."""
        if self._mean is None:
            self._mean = WeightedMean()
            for held in self.held.values():
                if held.reply is not None:
                    assert isinstance(held.reply.res, FitRes)
                    self._mean.add(held.entry.client_id, held.reply.res)
        return self._mean

    def missing(self) -> set[str]:
        """Return the tasks of this order whose replies are not held."""
        return self._by_task().keys() - self.held.keys()

    def entries(self) -> list[PartialEntry]:
        """Return what became of each ask that has answered, by task id."""
        return [held.entry for _, held in sorted(self.held.items())]

    def in_hand(self, below: Iterable[str] = ()) -> OrderInHand:
        """Return what to report of it; ``below`` are tasks held by aggregators below."""
        held = self.held.keys() | set(below)
        return OrderInHand(
            self.order.task_id,
            list_digest(self.asks),
            bitmap(self.asks, held),
            self.stage is Stage.ANSWERED,
        )

    def forget_sum(self) -> None:
        """Release the memory of the sum and of the model; what is held stays."""
        self._mean, self.model, self.spec = None, None, None

    def let_go(self) -> None:
        """Keep only what tells its replies from those of others."""
        self.stage, self.partial = Stage.PASSED, None
        self.held = {}
        self.forget_sum()

    _index: dict[str, Asked] = field(default_factory=dict)

    def _by_task(self) -> dict[str, Asked]:
        if not self._index:
            self._index = {ask.task_id: ask for ask in self.asks}
        return self._index
