"""However hostile a run, the number of series is what flmq's own words make it."""

from __future__ import annotations

import secrets

from prometheus_client import generate_latest

from flmq.common.phase import Phase
from flmq.monitoring.families import MEASURED, PHASES
from flmq.monitoring.role import Role
from flmq.monitoring.serving import Monitor
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    ConnectionChanged,
    EventsDropped,
    Note,
    Outcome,
    PhaseClosed,
    PhaseOpened,
    ReceiptCame,
    ReplySent,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
    TaskReceived,
    TaskRef,
    TrainingEnded,
    WorkerEvent,
)
from flmq.observe.vitals import Vitals
from tests.monitoring.scraping import Scrape

_MOST_SERIES = 700


def text_of(monitor: Monitor) -> str:
    return generate_latest(monitor.registry).decode()


def invented() -> str:
    return secrets.token_hex(8)


def hostile_run(number: int) -> list[RunEvent]:
    """Events in which all that a peer may choose is another word each time."""
    name, phase = f"victim-{invented()}", Phase(f"kind-{invented()}")
    counts = RoundCounts(asked=1, accepted=1)
    return [
        ClientPresence(name, "online", invented(), number),
        ClientPresence(name, invented(), invented(), number),
        PhaseOpened(number, phase, (name,), None),
        *(
            ClientOutcome(number, phase, name, outcome, invented(), 1.0, metrics={invented(): 1.0})
            for outcome in Outcome
        ),
        PhaseClosed(number, phase, counts, 1.0, 10, 20, invented()),
        RoundClosed(number, 9, counts, counts, 0.5, {invented(): 1.0}, 1.0, 10, 20, invented()),
        ConnectionChanged(invented(), invented(), invented()),
        Note(invented()),
        EventsDropped({invented(): 3}),
    ]


def hostile_worker() -> list[WorkerEvent]:
    phase = Phase(f"kind-{invented()}")
    task = TaskRef(invented(), 1, phase, f"victim-{invented()}", invented())
    return [
        TaskReceived(task, 0.0, again=True),
        TrainingEnded(task, 0.0, -5.0, None, invented()),
        ReplySent(task, 0.0),
        ReceiptCame(task, 0.0, invented(), invented()),
    ]


def test_a_hostile_run_makes_no_series_of_its_own() -> None:
    monitor = Monitor(Role.SERVER, Vitals())
    (observer,) = monitor.run_observers
    for event in hostile_run(1):
        observer(event)
    before = Scrape.of(text_of(monitor))
    for number in range(2, 200):
        for event in hostile_run(number):
            observer(event)
    text = text_of(monitor)
    after = Scrape.of(text)
    assert after.samples.keys() == before.samples.keys()
    assert len(after.samples) < _MOST_SERIES
    assert "victim" not in text
    assert "kind-" not in text
    assert {each["phase"] for each in after.labels("flmq_replies_total")} <= set(PHASES)
    assert after.value("flmq_events_dropped_total") == 3 * 199


def test_a_hostile_server_makes_no_series_of_a_worker() -> None:
    monitor = Monitor(Role.WORKER, Vitals())
    (observer,) = monitor.worker_observers
    for event in hostile_worker():
        observer(event)
    before = Scrape.of(text_of(monitor))
    for _ in range(200):
        for event in hostile_worker():
            observer(event)
    text = text_of(monitor)
    assert Scrape.of(text).samples.keys() == before.samples.keys()
    assert "victim" not in text
    assert Scrape.of(text).value("flmq_worker_receipts_total", outcome="other") == 201


def test_clients_are_counted_by_the_state_that_they_are_in() -> None:
    monitor = Monitor(Role.SERVER, Vitals())
    (observer,) = monitor.run_observers
    for name, status in [("a", "online"), ("b", "online"), ("a", "away"), ("a", "gone")]:
        observer(ClientPresence(name, status, "", 1))
    found = Scrape.of(text_of(monitor))
    states = {each["state"] for each in found.labels("flmq_clients")}
    assert {state: found.value("flmq_clients", state=state) for state in states} == {
        "online": 1,
        "away": 0,
        "gone": 1,
    }


def test_a_run_is_in_one_state_at_a_time() -> None:
    monitor = Monitor(Role.SERVER, Vitals())
    (observer,) = monitor.run_observers

    def state() -> list[str]:
        found = Scrape.of(text_of(monitor))
        labels = found.labels("flmq_run_state")
        return [each["state"] for each in labels if found.value("flmq_run_state", **each)]

    assert state() == ["waiting"]
    observer(RunStarted("job", 3, "FedAvg", "in memory"))
    assert state() == ["running"]
    observer(RunEnded("job", 1, 1.0, error="no clients"))
    assert state() == ["failed"]
    observer(RunEnded("job", 1, 1.0, error="stopped after round 1", stopped=True))
    assert state() == ["stopped"]
    observer(RunEnded("job", 3, 1.0))
    assert state() == ["finished"]


def test_bytes_outside_of_phases_are_counted_with_their_round() -> None:
    monitor = Monitor(Role.SERVER, Vitals())
    (observer,) = monitor.run_observers
    counts = RoundCounts()
    observer(PhaseClosed(1, Phase.FIT, counts, 1.0, 100, 50, ""))
    observer(RoundClosed(1, 2, counts, counts, None, {}, 1.0, 120, 50))
    observer(RoundClosed(2, 2, counts, counts, None, {}, 1.0, 7, 8))
    found = Scrape.of(text_of(monitor))
    assert found.value("flmq_transferred_bytes_total", direction="down") == 127
    assert found.value("flmq_transferred_bytes_total", direction="up") == 58


def test_every_name_is_as_prometheus_has_it() -> None:
    for role in Role:
        vitals = Vitals()
        for name in MEASURED:
            vitals.measures(name, lambda: {"x": 1.0})
        found = Scrape.of(text_of(Monitor(role, vitals)))
        for name in found.ours:
            assert not name.endswith(("_ms", "_milliseconds", "_count_total")), name
        for name, text in found.help.items():
            assert text.endswith((".", ":")) or not name.startswith("flmq_"), (name, text)
    for family in MEASURED.values():
        assert family.name.endswith("_total") == (family.kind.value == "counter")
