"""Partial sums heard by a server: taken or refused whole, with the bits of the flat run."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import FitRes, Status, ndarrays_to_parameters
from flmq.common.phase import Phase
from flmq.common.typing import Code
from flmq.journal import Journal
from flmq.messaging import Sender
from flmq.observe.events import Note, Outcome, PartialSumCame, PhaseClosed
from flmq.server import ServerConfig
from flmq.server.asks import asks as asks_module
from flmq.server.asks import regional_orders
from flmq.server.lifecycle.replay import replay
from flmq.server.replies import reply_loop
from flmq.server.resumption import checkpointer
from flmq.server.strategy.combine import WeightedMean
from flmq.wire import (
    AggregateOrder,
    EntryOutcome,
    Failure,
    FailureKind,
    PartialSum,
    Receipt,
    ReceiptOutcome,
    Reply,
    Res,
    SendPartial,
    Task,
)
from flmq.wire.budget import OverBudget
from tests.dying import Died, dies_at
from tests.end_to_end.federation import JOB, Federation, in_thread
from tests.server.conftest import memory_federation
from tests.server.regional.adder import Scene, answers_of, entry, flat, noting, summed

__all__ = ["memory_federation"]


def accepted(scene: Scene, *clients: str) -> None:
    for name in clients:
        assert scene.peers[name].next(Receipt).outcome is ReceiptOutcome.ACCEPTED


@pytest.mark.parametrize("size", [5, 700_000], ids=["small", "in chunks"])
def test_a_sum_counts_once_for_all_who_are_in_it(memory_federation: Federation, size: int) -> None:
    rng = np.random.default_rng(3)
    model = ndarrays_to_parameters([rng.normal(size=size).astype(np.float32)])
    scene = Scene.of(memory_federation, model=model)
    order, tasks = scene.adder.order(), scene.tasks()
    assert {task.via for task in tasks.values()} == {"main"}
    assert {ask.task_id for ask in order.asks} == {task.task_id for task in tasks.values()}
    answers = answers_of(tasks) if size == 5 else own_answers(size)
    answers["b"] = Failure(FailureKind.EXCEPTION, "ValueError", "no data")
    partial = summed(order, answers)
    scene.adder.send(partial)
    assert scene.server.model() == flat(answers)
    accepted(scene, "a", "b", "c")
    receipt = scene.adder.receipt()
    assert (receipt.task_id, receipt.outcome) == (order.task_id, ReceiptOutcome.ACCEPTED)
    assert [(c, n) for c, n, _ in scene.strategy.results] == [("a", 1), ("c", 3)]
    (failure,) = scene.strategy.failures
    assert "ValueError: no data" in failure
    words = scene.server.watch.words()
    assert words == {"a": [Outcome.ACCEPTED], "b": [Outcome.FAILED], "c": [Outcome.ACCEPTED]}
    (came,) = scene.server.watch.of(PartialSumCame)
    assert (came.site, came.clients, came.accepted, came.refused) == ("main", 3, 2, "")
    (closed,) = scene.server.watch.of(PhaseClosed)
    assert came.bytes_up > 4 * size
    assert closed.bytes_up == came.bytes_up, "the partial's bytes, and no others"


def own_answers(size: int) -> dict[str, Res]:
    rng = np.random.default_rng(5)
    ok = Status(Code.OK, "")
    return {
        name: FitRes(
            ok, ndarrays_to_parameters([rng.normal(size=size).astype(np.float32)]), 1 + place, {}
        )
        for place, name in enumerate("abc")
    }


def test_who_is_not_in_it_is_waited_for_and_counts_by_itself(
    memory_federation: Federation,
) -> None:
    scene = Scene.of(memory_federation)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    scene.adder.send(summed(order, {name: answers[name] for name in "ac"}))
    accepted(scene, "a", "c")
    scene.peers["b"].reply(tasks["b"], answers["b"])
    assert scene.server.model() == flat(answers)


def test_a_sum_that_comes_twice_counts_once(memory_federation: Federation) -> None:
    scene = Scene.of(memory_federation)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    partial = summed(order, {name: answers[name] for name in "ac"})
    scene.adder.send(partial)
    scene.adder.send(partial)
    assert scene.adder.receipt().outcome is ReceiptOutcome.ACCEPTED
    assert scene.adder.receipt().outcome is ReceiptOutcome.DUPLICATE
    scene.peers["b"].reply(tasks["b"], answers["b"])
    assert scene.server.model() == flat(answers)


def test_a_sum_that_comes_late_is_late_by_name(memory_federation: Federation) -> None:
    scene = Scene.of(memory_federation, rounds=2, timeout=4.0)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    scene.peers["b"].reply(tasks["b"], answers["b"])
    scene.server.watch.wait_for(PhaseClosed)
    scene.adder.send(summed(order, {name: answers[name] for name in "ac"}))
    assert scene.adder.receipt().outcome is ReceiptOutcome.LATE
    assert scene.peers["a"].receipt().outcome is ReceiptOutcome.LATE
    assert scene.peers["c"].receipt().outcome is ReceiptOutcome.LATE


def test_an_aggregator_that_has_enough_is_told_to_send(memory_federation: Federation) -> None:
    config = ServerConfig(1, 30.0, target_results=2)
    scene = Scene.of(memory_federation, config=config)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    scene.adder.holds(order, "a", "c")
    assert scene.adder.next(SendPartial).task_id == order.task_id
    two = {name: answers[name] for name in "ac"}
    scene.adder.send(summed(order, two))
    assert scene.server.model() == flat(two)


# -- refused


Spoil = Callable[[AggregateOrder, dict[str, Res], Scene], PartialSum]


def _twice(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    listed = [entry(order.asks[0], answers[order.asks[0].client_id]) for _ in range(2)]
    return summed(order, answers, entries=listed)


def _not_asked(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    stranger = replace(order.asks[0], task_id="0" * 32, client_id="z")
    return summed(order, answers, entries=[entry(stranger, answers["a"])])


def _settled(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    (ask,) = (ask for ask in order.asks if ask.client_id == "a")
    peer = scene.peers["a"]
    reply = Reply(ask.task_id, JOB, 1, Phase.FIT, "a", order.epoch, ask.nonce, 0.0, answers["a"])
    peer.send(peer.reply_address(), reply)
    assert peer.next(Receipt).outcome is ReceiptOutcome.ACCEPTED
    return summed(order, answers)


def _of_other_shape(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    mean = WeightedMean()
    for name, res in answers.items():
        assert isinstance(res, FitRes)
        small = ndarrays_to_parameters([np.zeros(2, np.float32), np.zeros((1, 2), np.float32)])
        mean.add(name, replace(res, parameters=small))
    return summed(order, answers, accumulator=b"".join(mean.to_pieces()))


def _of_other_weights(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    res = answers["a"]
    assert isinstance(res, FitRes)
    heavier = {**answers, "a": replace(res, num_examples=9)}
    listed = [entry(ask, heavier[ask.client_id]) for ask in order.asks]
    return summed(order, answers, entries=listed)


def _damaged(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    good = bytearray(summed(order, answers).parameters.tensors[0])
    good[len(good) // 2] ^= 1
    return summed(order, answers, accumulator=bytes(good))


def _garbage(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    partial = summed(order, answers)
    spoiled = replace(partial.parameters, tensors=[partial.parameters.tensors[0], b"\xff" * 99])
    return replace(partial, parameters=spoiled)


def _no_failure(order: AggregateOrder, answers: dict[str, Res], scene: Scene) -> PartialSum:
    listed = [entry(ask, answers[ask.client_id], outcome=EntryOutcome.FAILED) for ask in order.asks]
    return summed(order, answers, entries=listed, accumulator=b"")


def _changed(**changes: Any) -> Spoil:
    return lambda order, answers, scene: summed(order, answers, **changes)


SPOILS: list[tuple[Spoil, str]] = [
    (_changed(nonce=b"0" * 32), "its order's nonce"),
    (_changed(job="another"), "it is of job another"),
    (_changed(run="0" * 16), "run 0000000000000000"),
    (lambda o, a, s: summed(o, a, epoch=o.epoch + 1), "it is of epoch"),
    (lambda o, a, s: summed(o, a, epoch=o.epoch - 1), "it is of epoch"),
    (_changed(server_round=2), "it is of round 2"),
    (_changed(phase=Phase.EVALUATE), "it is of round 1, evaluate"),
    (_changed(site="another"), "it is of site another"),
    (_twice, "twice"),
    (_not_asked, "it lists z, who was not asked"),
    (_settled, "it lists a, whose answer is settled already"),
    (_of_other_weights, "stored sum of weight 6"),
    (_of_other_shape, "a tensor 0 that is"),
    (_damaged, "stored accumulator is damaged"),
    (_garbage, "entries"),
    (_no_failure, "as failed, without a failure"),
    (_changed(parameters=ndarrays_to_parameters([np.zeros(3)])), "two tensors"),
]


@pytest.mark.parametrize(("spoil", "reason"), SPOILS, ids=[reason for _, reason in SPOILS])
def test_a_sum_is_refused_by_name_and_its_clients_are_asked_directly(
    memory_federation: Federation, spoil: Spoil, reason: str
) -> None:
    scene = Scene.of(memory_federation)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    scene.adder.send(spoil(order, answers, scene))
    receipt = scene.adder.receipt()
    assert receipt.outcome is ReceiptOutcome.REJECTED
    assert reason in receipt.reason
    refused = scene.server.watch.wait_for(PartialSumCame, lambda came: bool(came.refused))
    assert reason in refused.refused
    directly = [name for name in "abc" if spoil is not _settled or name != "a"]
    for name in directly:
        again = scene.peers[name].task()
        assert (again.task_id, again.via) == (tasks[name].task_id, "")
    # What it says later of the phase is refused, too, even if nothing is wrong with it.
    scene.adder.send(summed(order, answers))
    assert "asked directly" in scene.adder.receipt().reason
    for name in directly:
        scene.peers[name].reply(tasks[name], answers[name])
    assert scene.server.model() == flat(answers)
    assert any("is done without" in note.text for note in scene.server.watch.of(Note))


def test_a_sum_of_no_order_is_a_dead_letter_and_one_long_over_is_late(
    memory_federation: Federation,
) -> None:
    scene = Scene.of(memory_federation)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    scene.adder.send(summed(order, answers, task_id="1" * 32))
    (dead,) = scene.federation.dead(1)
    assert "answers no order here" in str(dead.message.headers)
    scene.adder.send(summed(order, answers))
    assert scene.server.model() == flat(answers)


# -- done without


def direct_tasks(scene: Scene) -> dict[str, Task]:
    """The task by which each client is asked directly, be it the second one."""
    tasks = scene.tasks()
    for name, task in list(tasks.items()):
        if task.via:
            tasks[name] = scene.peers[name].task()
        assert tasks[name].via == ""
    return tasks


def test_an_aggregator_of_which_nothing_is_heard_is_done_without(
    memory_federation: Federation,
) -> None:
    scene = Scene.of(memory_federation, aggregator_patience=1.0)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    for name, peer in scene.peers.items():
        again = peer.task()
        assert (again.task_id, again.via) == (tasks[name].task_id, "")
    scene.adder.send(summed(order, answers))
    assert "nothing was heard of it" in scene.adder.receipt().reason
    scene.reply(tasks, answers)
    assert scene.server.model() == flat(answers)


def test_one_that_has_no_queue_is_done_without_at_once(memory_federation: Federation) -> None:
    scene = Scene.of(memory_federation, declares=False)
    tasks = direct_tasks(scene)
    answers = answers_of(tasks)
    scene.reply(tasks, answers)
    assert scene.server.model() == flat(answers)


def test_none_is_asked_where_they_are_switched_off(memory_federation: Federation) -> None:
    scene = Scene.of(memory_federation, aggregators=False)
    tasks = scene.tasks()
    assert {task.via for task in tasks.values()} == {""}
    answers = answers_of(tasks)
    scene.reply(tasks, answers)
    assert scene.server.model() == flat(answers)


# -- killed


@pytest.mark.parametrize(
    "point", ["server.sum_checked", "server.sum_journalled", "server.round_aggregated"]
)
def test_a_server_that_dies_around_a_sum_goes_on_with_the_same_bits(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    point: str,
) -> None:
    scene = Scene.of(memory_federation, tmp_path)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    partial = summed(order, {name: answers[name] for name in "ac"})
    with monkeypatch.context() as patch:
        for module in (reply_loop, checkpointer):
            patch.setattr(module, "crash_point", dies_at(point))
        scene.peers["b"].reply(tasks["b"], answers["b"])
        assert scene.peers["b"].next(Receipt).outcome is ReceiptOutcome.ACCEPTED
        scene.adder.send(partial)
        with pytest.raises(Died):
            scene.server.history()
    scene.again()
    scene.adder.report()
    if point != "server.round_aggregated":
        scene.adder.send(partial)
    assert scene.server.model() == flat(answers)
    assert sorted(c for c, _, _ in scene.strategy.results) == ["a", "b", "c"]
    journal = Journal.open(tmp_path / JOB, create=False)
    (replayed,) = replay(journal, noting())
    journal.close()
    assert replayed.same


def test_what_was_ordered_stays_ordered_when_the_server_dies(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(asks_module, "crash_point", dies_at("server.orders_published"))
        scene = Scene.of(memory_federation, tmp_path)
        first = scene.adder.order()
        with pytest.raises(Died):
            scene.server.history()
    scene.again()
    second, tasks = scene.adder.order(), scene.tasks()
    assert (second.task_id, second.asks) == (first.task_id, first.asks)
    assert second.epoch > first.epoch
    assert {task.via for task in tasks.values()} == {"main"}
    answers = answers_of(tasks)
    # The sum that answers the first server's order is as good: nobody was asked anything else.
    scene.adder.send(summed(first, answers))
    assert scene.adder.receipt().outcome is ReceiptOutcome.ACCEPTED
    assert scene.server.model() == flat(answers)


def test_a_sum_for_an_earlier_server_is_refused_by_one_that_goes_without_aggregators(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(asks_module, "crash_point", dies_at("server.tasks_published"))
        scene = Scene.of(memory_federation, tmp_path)
        order, answers = scene.adder.order(), answers_of(scene.tasks())
        with pytest.raises(Died):
            scene.server.history()
    scene.again(aggregators=False)
    tasks = scene.tasks()
    assert {task.via for task in tasks.values()} == {""}
    scene.adder.send(summed(order, {name: answers[name] for name in "ac"}))
    assert scene.adder.receipt().outcome is ReceiptOutcome.REJECTED
    scene.reply(tasks, answers)
    assert scene.server.model() == flat(answers)


def test_a_sum_of_nobody_leaves_its_order_open_for_the_next_server(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene.of(memory_federation, tmp_path)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    with monkeypatch.context() as patch:
        patch.setattr(reply_loop, "crash_point", dies_at("server.reply_journalled"))
        scene.adder.send(summed(order, {}))
        assert scene.adder.receipt().outcome is ReceiptOutcome.ACCEPTED
        scene.peers["b"].reply(tasks["b"], answers["b"])
        with pytest.raises(Died):
            scene.server.history()
    scene.again()
    scene.adder.report()
    second = scene.adder.order()
    scene.adder.send(summed(second, {name: answers[name] for name in "ac"}))
    assert scene.adder.receipt().outcome is ReceiptOutcome.ACCEPTED
    assert scene.server.model() == flat(answers)


def test_who_is_new_in_a_sum_that_was_made_again_keeps_its_reply(
    memory_federation: Federation,
) -> None:
    scene = Scene.of(memory_federation)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    scene.adder.send(summed(order, {"a": answers["a"]}))
    assert scene.adder.receipt().outcome is ReceiptOutcome.ACCEPTED
    scene.adder.send(summed(order, {name: answers[name] for name in "ab"}))
    assert scene.adder.receipt().outcome is ReceiptOutcome.DUPLICATE
    scene.peers["b"].reply(tasks["b"], answers["b"])
    assert scene.peers["b"].next(Receipt).outcome is ReceiptOutcome.ACCEPTED
    scene.peers["c"].reply(tasks["c"], answers["c"])
    assert scene.server.model() == flat(answers)


def test_one_that_holds_all_and_sends_nothing_is_done_without(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regional_orders, "_HELD_FOR", 2)
    scene = Scene.of(memory_federation, aggregator_patience=1.0)
    order, tasks = scene.adder.order(), scene.tasks()
    answers = answers_of(tasks)
    stop = threading.Event()

    def hold() -> None:
        while not stop.wait(0.2):
            scene.adder.holds(order, "a", "b", "c")

    holding = in_thread(hold)
    try:
        for name, peer in scene.peers.items():
            again = peer.task()
            assert (again.task_id, again.via) == (tasks[name].task_id, "")
            peer.reply(tasks[name], answers[name])
        assert scene.server.model() == flat(answers)
    finally:
        stop.set()
        holding.result(10)
    assert any("holds all replies" in note.text for note in scene.server.watch.of(Note))


def test_an_order_too_large_for_a_message_is_done_without(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def send(self: Sender, address: Any, body: Any, **options: Any) -> Any:
        if isinstance(body, AggregateOrder):
            raise OverBudget("it holds more than 100000 values")
        return plain(self, address, body, **options)

    plain = Sender.send
    monkeypatch.setattr(Sender, "send", send)
    scene = Scene.of(memory_federation)
    tasks = direct_tasks(scene)
    answers = answers_of(tasks)
    scene.reply(tasks, answers)
    assert scene.server.model() == flat(answers)
