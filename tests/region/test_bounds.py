"""What an aggregator does not do without a bound: send again, take messages, say it is there."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import pytest

from flmq.common import Parameters
from flmq.messaging import Sent
from flmq.region import app
from flmq.region.answers import Answers
from flmq.region.below import Below
from flmq.region.book import OrderBook
from flmq.region.clocks import Clocks
from flmq.region.desk import Desk
from flmq.region.ledger import MemoryLedger
from flmq.region.models import OrderModels
from flmq.region.orders import Orders
from flmq.region.parts import Parts
from flmq.region.work import OrderInWork, Stage
from flmq.transport import TASKS, Address, everybody_key
from flmq.wire import (
    INLINE_BYTES,
    AggregatorReport,
    PartialSum,
    ReceiptOutcome,
    RollCall,
    refer,
)
from flmq.wire.regional import PARTIAL_TENSORS
from tests.region.stage import JOB, RUN, flat
from tests.region.stage import Stage as Scene


@dataclass
class _Line:
    """A sender that counts what it is given."""

    sums: int = 0
    chunks: list[object] = field(default_factory=list)

    def send(self, *_: object, **__: object) -> None:
        self.sums += 1

    def send_blob(self, *given: object) -> Sent:
        self.chunks.append(given)
        return Sent(0, Future())

    def chunk_bytes(self, _: str) -> int:
        return 1 << 20


@pytest.mark.parametrize(("size", "times"), [(10, 11), (INLINE_BYTES + 1, 1)])
def test_a_large_sum_is_not_sent_each_time_that_its_order_comes(
    memory_stage: Scene, size: int, times: int
) -> None:
    now, line = 0.0, _Line()
    answers: Any = Answers("main", line, MemoryLedger(), lambda: now)  # type: ignore[arg-type]
    work = OrderInWork(memory_stage.order(["ann"]), Stage.ANSWERED)
    work.partial = Parameters([bytes(size), b""], PARTIAL_TENSORS)
    answers.tick(work)
    for _ in range(10):
        now += 5.5
        answers.ask_again(work)
    assert line.sums == times
    work.times_sent = 0  # another server asks
    now += 5.5
    answers.ask_again(work)
    assert line.sums == times + 1


def test_a_sum_without_a_receipt_is_sent_ever_more_rarely(memory_stage: Scene) -> None:
    now, line = 0.0, _Line()
    answers: Any = Answers("main", line, MemoryLedger(), lambda: now)  # type: ignore[arg-type]
    work = OrderInWork(memory_stage.order(["ann"]), Stage.ANSWERED)
    work.partial = Parameters([bytes(INLINE_BYTES + 1), b""], PARTIAL_TENSORS)
    for second in range(3600):
        now = float(second)
        answers.tick(work)
        answers.ask_again(work)
    assert 5 <= line.sums <= 10


def test_a_stream_of_messages_does_not_keep_the_desk_from_its_orders() -> None:
    ticks: list[str] = []
    body = RollCall(JOB, 1, 1.0, run=RUN)
    incoming = SimpleNamespace(body=body, delivery=SimpleNamespace(queue="flmq.aggregator.main"))
    inbox = SimpleNamespace(receive=lambda _: incoming, ack=lambda _: None)
    nothing = SimpleNamespace(commit=lambda: None, is_full=False, tick=lambda: ticks.append("tick"))
    given: Any = (inbox, nothing, nothing, nothing, nothing, nothing)
    Desk("main", *given).turn()
    assert "tick" in ticks


def test_one_that_hangs_says_no_more_that_it_is_there(
    memory_stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, go_on = memory_stage, threading.Event()

    def hangs(self: OrderModels, work: OrderInWork) -> None:
        go_on.wait(30)

    def listen() -> None:
        while True:
            stage.wait_for(AggregatorReport, patience=2.0)

    monkeypatch.setattr(app, "_STUCK", 1.0)
    monkeypatch.setattr(OrderModels, "get", hangs)
    stage.aggregate()
    stage.send_order(stage.order(["ann"]))
    stage.send_reply(stage.reply("ann"))
    with pytest.raises(AssertionError):
        listen()
    go_on.set()
    stage.report()
    stage.stop()


def test_what_is_half_here_goes_when_its_order_is_answered(
    memory_stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    work: OrderInWork | None = OrderInWork(memory_stage.order(["ann"]))
    below: Any = SimpleNamespace(problem=lambda *_: None)
    monkeypatch.setattr("flmq.region.parts.whole_of", lambda partial, book: work)
    inbox: Any = SimpleNamespace(ack=lambda _: None)
    parts = Parts([], below, inbox, None, lambda of: of.order.parameters)  # type: ignore[arg-type]
    order = memory_stage.order(["ann"])
    tensors = Parameters([bytes(9), b""], PARTIAL_TENSORS)
    head = order.task_id, JOB, 1, order.phase, "main", 7, b"n", RUN
    partial = PartialSum(*head, Parameters([], PARTIAL_TENSORS), refer(tensors))
    parts.hear(SimpleNamespace(bytes=9), partial)  # type: ignore[arg-type]
    parts.tick()
    assert parts._uploads.received()
    work = None
    parts.tick()
    assert not parts._uploads.received()
    parts.close()


def test_an_order_that_comes_again_with_less_time_left_is_not_answered_at_half_time(
    memory_stage: Scene,
) -> None:
    now = 1000.0
    order = memory_stage.order(["ann"], deadline_unix_ms=100_000, timeout_seconds=100.0)
    desk: Any = SimpleNamespace(put=lambda _: None, give_up=lambda _: None, forget=lambda _: None)
    below: Any = Below("main", (), memory_stage.sender, patience=60.0, clock=lambda: now)
    clocks = Clocks(lambda: now, lambda: now - 1000.0)
    book = OrderBook([])
    made: list[float] = []
    answers: Any = SimpleNamespace(make=lambda *_: made.append(now - 1000.0))
    orders = Orders("main", book, desk, desk, answers, below, clocks)
    for second in range(100):
        now = 1000.0 + second
        if second % 30 == 0:
            orders.take(replace(order, timeout_seconds=100.0 - second))
        orders.tick()
    assert 89.0 <= made[0] <= 95.0


def test_orders_that_are_over_leave_room_for_new_ones(
    memory_stage: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = memory_stage
    monkeypatch.setattr("flmq.region.book.MAX_ASKS", 5)
    stage.aggregate()
    for number in range(1, 5):
        order = stage.send_order(stage.order(["ann", "bob"], round_=number))
        for client in ("ann", "bob"):
            stage.send_reply(stage.reply(client, number))
        assert stage.summed(order)[0] == flat(["ann", "bob"])
        stage.receipt(order, ReceiptOutcome.ACCEPTED)
    stage.stop()


def test_a_roll_call_is_answered_at_once(memory_stage: Scene) -> None:
    stage = memory_stage
    stage.aggregate(report_every=60.0)
    stage.report()
    roll_call = RollCall(JOB, 1, 1.0, run=RUN)
    for _ in range(2):
        stage.sender.send(Address(TASKS, everybody_key("main")), roll_call).outcome.result(5)
        report = stage.wait_for(AggregatorReport, patience=5.0)
        assert isinstance(report, AggregatorReport)
        assert report.report_seconds == 60.0
    stage.stop()


def test_an_order_that_nobody_answered_is_over_when_a_later_round_begins(
    memory_stage: Scene,
) -> None:
    stage = memory_stage
    stage.aggregate()
    stage.send_order(stage.order(["ann", "bob"]))
    stage.send_reply(stage.reply("ann"))
    stage.report(lambda report: any(any(each.held) for each in report.orders))
    second = stage.send_order(stage.order(["ann", "bob"], round_=2))
    stage.report(lambda report: [each.task_id for each in report.orders] == [second.task_id])
    stage.stop()
