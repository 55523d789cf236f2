"""Aggregators below another: their partial sums are checked, and it does without who is gone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flmq.common import Parameters
from flmq.common.parameter import without_parameters
from flmq.region.below import Below
from flmq.region.work import OrderInWork
from flmq.server.strategy.combine import WeightedMean
from flmq.transport import (
    PARTIALS,
    PRESENCE,
    Address,
    aggregator_key,
    aggregator_queue,
    aggregator_topology,
    federation_topology,
    partial_key,
)
from flmq.wire import (
    AggregateOrder,
    AggregatorReport,
    EntryOutcome,
    PartialEntry,
    PartialSum,
    Receipt,
    ReceiptOutcome,
    decode,
)
from flmq.wire.entries import write_entries
from flmq.wire.regional import MAX_COVERS, PARTIAL_TENSORS, marked
from tests.region.stage import JOB, Stage, fit_res, flat
from tests.transport.rigs import PATIENCE


class Sub:
    """The aggregator of site "sub", played by the test."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        transport = stage.rig.transport()
        transport.declare(federation_topology("sub") + aggregator_topology("sub"))
        self.consumer = transport.consumer([aggregator_queue("sub")], prefetch=10)
        self.report()

    def report(self, seconds: float = 2.0) -> None:
        """Say that it is there, or with 0 that it leaves."""
        report = AggregatorReport("sub", "by hand", ("sub",), report_seconds=seconds)
        self.stage.sender.send(Address(PRESENCE, aggregator_key("sub")), report, mandatory=False)

    def hears(self, kind: type[Any]) -> Any:
        """Wait for a message of a kind."""
        while True:
            delivery = self.consumer.receive(PATIENCE)
            assert delivery is not None, f"no {kind.__name__} came"
            self.consumer.ack(delivery)
            body = decode(delivery.message.body)
            if isinstance(body, kind):
                return body

    def send(self, order: AggregateOrder, clients: list[str], **but: Any) -> None:
        """Send a partial sum of these clients' replies."""
        mean, entries = WeightedMean(), []
        asked = {ask.client_id: ask.task_id for ask in order.asks}
        for client in clients:
            res = fit_res(client)
            mean.add(client, res)
            told = without_parameters(res)
            number = asked.get(client, "not-asked")
            entries.append(PartialEntry(number, client, EntryOutcome.ACCEPTED, told))
        partial = PartialSum(
            order.task_id,
            JOB,
            order.server_round,
            order.phase,
            "sub",
            order.epoch,
            order.nonce,
            order.run,
            Parameters([b"".join(mean.to_pieces()), write_entries(entries)], PARTIAL_TENSORS),
        )
        address = Address(PARTIALS, partial_key("main", "sub", JOB))
        self.stage.sender.send(address, replace(partial, **but)).outcome.result(PATIENCE)


@pytest.fixture
def sub(memory_stage: Stage) -> Sub:
    memory_stage.aggregate(regions="sub", region_patience=1.0)
    sub = Sub(memory_stage)
    memory_stage.report(lambda report: report.covers == ("main", "sub"))
    return sub


def ordered(stage: Stage) -> AggregateOrder:
    """An order of a client here and two below."""
    order = stage.order(["ann"])
    below = tuple(stage.asked(client, site="sub") for client in ("bob", "cy"))
    return stage.send_order(replace(order, asks=(*order.asks, *below)))


def test_a_partial_sum_from_below_is_in_ours(sub: Sub) -> None:
    stage = sub.stage
    order = ordered(stage)
    part = sub.hears(AggregateOrder)
    assert [ask.client_id for ask in part.asks] == ["bob", "cy"]
    assert (part.answer_to, part.epoch) == ("main", order.epoch)
    stage.send_reply(stage.reply("ann"))
    sub.send(part, ["bob", "cy"])
    mean, entries = stage.summed(order)
    assert (sorted(entries), mean) == (["ann", "bob", "cy"], flat(["ann", "bob", "cy"]))
    assert sub.hears(Receipt).outcome is ReceiptOutcome.ACCEPTED
    sub.send(part, ["bob", "cy"])
    assert sub.hears(Receipt).outcome is ReceiptOutcome.DUPLICATE
    stage.stop()


@pytest.mark.parametrize(
    ("clients", "but", "word"),
    [
        (["bob", "bob"], {}, "bob twice"),
        (["bob", "eve"], {}, "eve, who was not asked"),
        ([], {"parameters": Parameters([b"garbage", b""], PARTIAL_TENSORS)}, "damaged"),
        ([], {"parameters": Parameters([b""], PARTIAL_TENSORS)}, "two tensors"),
    ],
)
def test_one_that_does_not_fit_is_refused_whole(
    sub: Sub, clients: list[str], but: dict[str, Any], word: str
) -> None:
    stage = sub.stage
    order = ordered(stage)
    sub.send(sub.hears(AggregateOrder), clients, **but)
    receipt = sub.hears(Receipt)
    assert receipt.outcome is ReceiptOutcome.REJECTED
    assert word in receipt.reason
    stage.send_reply(stage.reply("ann"))
    mean, entries = stage.summed(order)
    assert (list(entries), mean) == (["ann"], flat(["ann"]))
    stage.stop()


@pytest.mark.parametrize("but", [{"nonce": b"x"}, {"run": "other"}, {"epoch": 9}, {"job": "other"}])
def test_one_of_another_order_is_dropped_and_the_honest_one_counts(
    sub: Sub, but: dict[str, Any]
) -> None:
    stage = sub.stage
    order = ordered(stage)
    part = sub.hears(AggregateOrder)
    sub.send(part, ["bob"], **but)
    sub.send(part, ["bob", "cy"])
    stage.send_reply(stage.reply("ann"))
    assert stage.summed(order)[0] == flat(["ann", "bob", "cy"])
    stage.stop()


def test_one_that_is_gone_is_done_without(sub: Sub) -> None:
    stage = sub.stage
    order = ordered(stage)
    part = sub.hears(AggregateOrder)
    stage.send_reply(stage.reply("ann"))
    assert list(stage.summed(order)[1]) == ["ann"]
    stage.report(lambda report: report.covers == ("main",))
    assert sub.hears(Receipt).outcome is ReceiptOutcome.LATE
    sub.send(part, ["bob", "cy"])
    assert sub.hears(Receipt).outcome is ReceiptOutcome.LATE
    stage.stop()


def test_what_came_from_below_is_reported_as_held_once_the_sum_is_made(
    sub: Sub, tmp_path: Path
) -> None:
    stage = sub.stage
    stage.stop()

    def all_held(report: AggregatorReport) -> bool:
        held = [marked(order.asks, each.held) for each in report.orders if each.answered]
        return held == [{ask.task_id for ask in order.asks}]

    stage.aggregate(tmp_path, regions="sub", region_patience=1.0)
    sub.report()
    stage.report(lambda report: report.covers == ("main", "sub"))
    order = ordered(stage)
    stage.send_reply(stage.reply("ann"))
    sub.send(sub.hears(AggregateOrder), ["bob", "cy"])
    stage.summed(order)
    stage.report(all_held)
    stage.stop()
    stage.aggregate(tmp_path, regions="sub", region_patience=1.0)
    stage.report(all_held)
    stage.stop()


def test_what_is_left_of_parts_goes_with_their_orders(memory_stage: Stage) -> None:
    stage = memory_stage
    below = Below("main", ["sub"], stage.sender, patience=1.0, clock=lambda: 0.0)
    below.hear(AggregatorReport("sub", "by hand", ("sub",), report_seconds=2.0))
    order = stage.order(["ann"])
    work = OrderInWork(replace(order, asks=(stage.asked("bob", site="sub"),)))
    below.delegate(work)
    assert below.is_waited_for(work)
    below.forget([order.task_id])
    assert not below.is_waited_for(work)
    many = tuple(f"s{number}" for number in range(1001))
    below.hear(AggregatorReport("sub", "by hand", many, report_seconds=2.0))
    assert len(below.covers()) == MAX_COVERS


def test_its_orders_are_the_same_in_each_life(sub: Sub) -> None:
    stage = sub.stage
    order = ordered(stage)
    part = sub.hears(AggregateOrder)
    stage.stop()
    stage.aggregate(regions="sub", region_patience=1.0)
    sub.report()
    stage.report(lambda report: report.covers == ("main", "sub"))
    stage.send_order(order)
    again = sub.hears(AggregateOrder)
    assert (again.task_id, again.nonce) == (part.task_id, part.nonce)
    stage.send_reply(stage.reply("ann"))
    sub.send(part, ["bob", "cy"])
    assert stage.summed(order)[0] == flat(["ann", "bob", "cy"])
    stage.stop()
