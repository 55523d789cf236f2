"""What a process says of itself: of its connection, its loops, and what it lacks."""

from __future__ import annotations

from flmq.observe.vitals import Vitals
from flmq.transport import ConnectionEvent, ConnectionState


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def changed(vitals: Vitals, state: ConnectionState, detail: str = "") -> None:
    vitals.connection_changed(ConnectionEvent("", state, detail))


def test_troubles_of_the_connection_are_counted_and_timed() -> None:
    time = Time()
    vitals = Vitals(time)
    assert vitals.unready() == ["broker: not connected yet"]
    changed(vitals, ConnectionState.CONNECTED)
    assert vitals.unready() == []
    time.now += 5
    changed(vitals, ConnectionState.LOST, "reset")
    time.now += 2
    changed(vitals, ConnectionState.LOST, "for 2 s now")  # said again: no other loss
    assert vitals.unready() == ["broker: lost reset"]
    time.now += 1
    assert vitals.connection.seconds[ConnectionState.LOST] == 3
    changed(vitals, ConnectionState.BLOCKED, "memory")
    time.now += 7
    changed(vitals, ConnectionState.CONNECTED)
    time.now += 7
    connection = vitals.connection
    assert connection.losses == 1
    assert connection.seconds == {ConnectionState.LOST: 3, ConnectionState.BLOCKED: 7}


def test_one_connection_that_is_well_does_not_make_up_for_another() -> None:
    vitals = Vitals(Time())

    def tell(role: str, state: ConnectionState) -> None:
        vitals.connection_changed(ConnectionEvent(role, state))

    for role in ("control", "publisher", "consumer"):
        tell(role, ConnectionState.CONNECTED)
    tell("consumer", ConnectionState.BLOCKED)  # its queue is gone
    tell("publisher", ConnectionState.LOST)
    tell("publisher", ConnectionState.CONNECTED)
    assert vitals.unready() == ["broker: blocked"]
    tell("consumer", ConnectionState.CONNECTED)
    assert vitals.unready() == []
    tell("publisher", ConnectionState.CLOSED)  # one that is done
    assert vitals.unready() == []
    assert vitals.connection.losses == 1


def test_a_loop_that_does_not_come_round_is_stuck_unless_the_broker_is_away() -> None:
    time = Time()
    vitals = Vitals(time)
    changed(vitals, ConnectionState.CONNECTED)
    vitals.loop("listener", lambda: 100.0, lambda: 60)
    time.now = 160
    assert vitals.stuck() == []
    time.now = 161
    assert vitals.stuck() == ["listener: nothing goes on for 61 s"]
    changed(vitals, ConnectionState.BLOCKED)
    time.now = 10_000
    assert vitals.stuck() == []
    # It has as long again once the broker is back.
    changed(vitals, ConnectionState.CONNECTED)
    time.now += 60
    assert vitals.stuck() == []
    time.now += 1
    assert vitals.stuck() != []


def test_what_is_lacking_is_said_until_it_is_there() -> None:
    vitals = Vitals(Time())
    changed(vitals, ConnectionState.CONNECTED)
    vitals.needs("job", lambda: "another server has it")
    assert vitals.unready() == ["job: another server has it"]
    vitals.needs("job", lambda: "")
    assert vitals.unready() == []
