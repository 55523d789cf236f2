"""What an aggregator does not do without a bound: send again, take messages, say it is there."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from flmq.common import Parameters
from flmq.region import app
from flmq.region.answers import Answers
from flmq.region.desk import Desk
from flmq.region.ledger import MemoryLedger
from flmq.region.models import OrderModels
from flmq.region.parts import Parts
from flmq.region.work import OrderInWork, Stage
from flmq.wire import INLINE_BYTES, AggregatorReport, PartialSum, RollCall, refer
from flmq.wire.regional import PARTIAL_TENSORS
from tests.region.stage import JOB, RUN
from tests.region.stage import Stage as Scene


@dataclass
class _Line:
    """A sender that counts what it is given."""

    sums: int = 0
    chunks: list[object] = field(default_factory=list)

    def send(self, *_: object, **__: object) -> None:
        self.sums += 1

    def send_blob(self, *given: object) -> None:
        self.chunks.append(given)

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


def test_what_is_half_here_goes_when_its_order_is_answered(memory_stage: Scene) -> None:
    work: OrderInWork | None = OrderInWork(memory_stage.order(["ann"]))
    below: Any = SimpleNamespace(find=lambda partial, book: work, problem=lambda *_: None)
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
