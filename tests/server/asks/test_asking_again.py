"""Whom to ask once more, and when: a run must not make its own load."""

from __future__ import annotations

from flmq.server.asks.asking_again import Allowance, AskingAgain, Flow
from flmq.wire import Receipt, Task, decode
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import MemoryRig

EVERY = 30.0


def times_asked(again: AskingAgain, seconds: int, *excused: str) -> dict[str, list[int]]:
    """When each was asked, in so many seconds of which each is looked at."""
    allowance, found = Allowance(), dict[str, list[int]]()
    for now in range(seconds):
        for ask in again.due(now, allowance, lambda ask, overdue: ask in excused and not overdue):
            found.setdefault(ask, []).append(now)
    return found


def test_who_says_nothing_is_asked_ever_later() -> None:
    assert times_asked(AskingAgain("a", 0.0, EVERY), 1200) == {
        "a": [30, 60, 120, 240, 480, 780, 1080]
    }


def test_whose_silence_is_explained_is_asked_after_ten_minutes_all_the_same() -> None:
    asked = times_asked(AskingAgain("ab", 0.0, EVERY), 650, "b")
    assert asked["b"] == [600]
    assert asked["a"][0] == 30


def test_ten_thousand_are_asked_a_hundred_a_second() -> None:
    again, allowance = AskingAgain(map(str, range(10_000)), 0.0, EVERY), Allowance()
    counts = [len(again.due(now, allowance, lambda ask, overdue: False)) for now in range(30, 130)]
    assert counts == [100] * 100


def test_who_has_answered_is_not_looked_at_again() -> None:
    again = AskingAgain("a", 0.0, EVERY)
    assert again.due(40.0, Allowance(), lambda ask, overdue: None) == set()
    assert again.due(400.0, Allowance(), lambda ask, overdue: False) == set()


def test_a_phase_flows_while_the_rest_would_come_soon() -> None:
    flow = Flow(10.0, {})
    assert not flow.flows(0.0, 1)
    flow.note(1.0, ["p"] * 100, 0)
    assert flow.flows(1.0, 1000)
    assert not flow.flows(1.0, 1001)
    flow.note(12.0, [], 0)
    assert not flow.flows(12.0, 1)


def test_a_phase_flows_while_chunks_come() -> None:
    flow = Flow(10.0, {})
    flow.note(1.0, [], 100)
    assert flow.flows(10.0, 1000)
    flow.note(20.0, [], 100)
    assert not flow.flows(20.0, 1)


def test_a_process_flows_while_its_clients_answer_in_whatever_phase() -> None:
    processes: dict[str, float] = {}
    Flow(10.0, processes).note(1.0, ["busy"], 0)
    flow = Flow(10.0, processes)
    assert flow.process_flows("busy", 5.0)
    assert not flow.process_flows("busy", 11.0)
    assert not flow.process_flows("idle", 5.0)


def test_a_task_that_a_restarted_broker_lost_is_published_again(
    memory_federation: Federation,
) -> None:
    """Tasks and receipts are not on its disk; half a minute need not pass all the same."""
    peer = memory_federation.peer("peer")
    server = memory_federation.run(fed_avg(1), timeout=None)
    delivery = peer.consumer.receive(10.0)
    while delivery is None or not isinstance(decode(delivery.message.body), Task):
        delivery = peer.consumer.receive(10.0)
    assert not delivery.message.persistent
    assert isinstance(memory_federation.rig, MemoryRig)
    memory_federation.rig.broker.restart()
    peer.reply(peer.task())
    assert isinstance(peer.next(Receipt), Receipt)
    server.history()
