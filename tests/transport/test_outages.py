"""What is told of an outage, and that all connections come back together."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from flmq.transport import ConnectionEvent, ConnectionState, open_transport
from flmq.transport.outages import OutageReporter
from tests.transport.rigs import PATIENCE, Events, RabbitMQRig, eventually, queue

LOST, BACK = ConnectionState.LOST, ConnectionState.CONNECTED
BLOCKED, CLOSED = ConnectionState.BLOCKED, ConnectionState.CLOSED
ROLES = ("control", "publisher", "consumer")


class Heard:
    """A reporter with a clock by hand, and what it told."""

    def __init__(self) -> None:
        self.now = 0.0
        self.told: list[tuple[str, str]] = []
        self.report = OutageReporter(self._hear, lambda: self.now)

    def _hear(self, event: ConnectionEvent) -> None:
        assert event.role == ""
        self.told.append((event.state.value, event.detail))

    def tell(self, role: str, state: ConnectionState, detail: str = "", number: int = 0) -> None:
        self.report(ConnectionEvent(role, state, detail, number))


@pytest.fixture
def heard() -> Heard:
    made = Heard()
    for role in ROLES:
        made.tell(role, BACK)
    assert made.told == [("connected", "")]
    made.told.clear()
    return made


def test_an_outage_is_a_line_when_it_begins_one_a_minute_and_one_when_it_is_over(
    heard: Heard,
) -> None:
    for role in ROLES:
        heard.tell(role, LOST, "the reason; next try in 0.5 s")
    for _ in range(65):
        heard.now += 2.0
        heard.tell("control", LOST, "no answer; next try in 2.0 s")
    for role in ROLES:
        heard.tell(role, BACK)
    assert heard.told == [
        ("lost", "the reason; next try in 0.5 s"),
        ("lost", "for 60 s now: no answer; next try in 2.0 s"),
        ("lost", "for 120 s now: no answer; next try in 2.0 s"),
        ("connected", "again after 130 s"),
    ]


@pytest.mark.parametrize("order", list(itertools.permutations(ROLES)))
def test_it_is_over_when_the_last_connection_is_back(heard: Heard, order: list[str]) -> None:
    for role in ROLES:
        heard.tell(role, LOST)
    for role in order:
        assert len(heard.told) == 1
        heard.tell(role, BACK)
    assert [state for state, _ in heard.told] == ["lost", "connected"]


def test_connections_of_one_role_are_told_apart(heard: Heard) -> None:
    for number in (1, 2):
        heard.tell("consumer", LOST, number=number)
    heard.tell("consumer", BACK, number=1)
    assert [state for state, _ in heard.told] == ["lost"]
    heard.tell("consumer", CLOSED, number=2)
    assert [state for state, _ in heard.told] == ["lost", "connected"]


def test_being_held_back_is_told_once_and_again_after_a_minute(heard: Heard) -> None:
    heard.tell("publisher", BLOCKED, "memory")
    heard.tell("consumer", BLOCKED, "memory")
    heard.now += 61
    heard.tell("consumer", BLOCKED, "memory")
    heard.tell("publisher", BACK)
    heard.tell("consumer", BACK)
    assert heard.told == [
        ("blocked", "memory"),
        ("blocked", "for 61 s now: memory"),
        ("connected", "again after 61 s"),
    ]


def test_who_is_held_back_and_then_lost_is_lost(heard: Heard) -> None:
    heard.tell("publisher", BLOCKED)
    heard.tell("publisher", LOST)
    heard.tell("publisher", BACK)
    heard.tell("control", CLOSED)
    assert [state for state, _ in heard.told] == ["blocked", "lost", "connected", "closed"]


@pytest.mark.parametrize("order", list(itertools.permutations(ROLES)))
def test_who_ends_during_an_outage_is_not_said_to_be_back(heard: Heard, order: list[str]) -> None:
    for role in ROLES:
        heard.tell(role, LOST)
    for role in order:
        heard.tell(role, CLOSED)
    assert [state for state, _ in heard.told] == ["lost", "closed"]


def test_a_new_outage_begins_anew(heard: Heard) -> None:
    for _ in range(2):
        heard.tell("control", LOST, "gone")
        heard.now += 7
        heard.tell("control", BACK)
        heard.now += 100
    assert heard.told == [("lost", "gone"), ("connected", "again after 7 s")] * 2


# Coming back together


def test_one_connection_tries_for_all_and_all_come_back(broker_url: str) -> None:
    rig, events = RabbitMQRig(broker_url), Events()
    try:
        transport = rig.transport(events)
        transport.declare(queue("q"))
        for _ in range(4):
            transport.publisher()
            transport.consumer(["q"], prefetch=1)
        before = {event.number for event in events.seen}
        assert len(before) == 9
        events.clear()
        rig.down()
        lost = _counted(events, LOST)
        eventually(lambda: sum(lost().values()) >= len(before) + 5)
        tried_again = [number for number, times in lost().items() if times > 1]
        assert len(tried_again) <= 2  # who led before all were lost, and who leads
        rig.up()
        back = _counted(events, BACK)
        eventually(lambda: set(back()) == before)
    finally:
        rig.close()


def test_a_leader_that_is_closed_leaves_the_trying_to_another(broker_url: str) -> None:
    rig, events = RabbitMQRig(broker_url), Events()
    try:
        transport = rig.transport(events)
        publishers = [transport.publisher() for _ in range(3)]
        events.clear()
        rig.down()
        lost = _counted(events, LOST)
        for number in range(3):
            publishers[number].close(timeout=0.0)
            seen = sum(lost().values())
            eventually(lambda seen=seen: sum(lost().values()) > seen)  # type: ignore[misc]
        rig.up()
        events.wait_for("control", BACK, PATIENCE)
    finally:
        rig.close()


def test_an_opened_transport_tells_as_one(broker_url: str) -> None:
    rig, events = RabbitMQRig(broker_url), Events()
    with open_transport(rig.url, listener=events) as transport:
        transport.declare(queue("q"))
        transport.publisher()
        transport.consumer(["q"], prefetch=1)
        rig.cut()
        events.wait_for("", LOST)
        eventually(lambda: [event.state for event in events.seen] == [BACK, LOST, BACK])
    rig.close()


def _counted(events: Events, state: ConnectionState) -> Callable[[], dict[int, int]]:
    def count() -> dict[int, int]:
        numbers = [event.number for event in list(events.seen) if event.state is state]
        return {number: numbers.count(number) for number in numbers}

    return count
