"""Events come to every observer, and none of them can hold up or end the run."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator

import pytest

from flmq.observe.bus import EventBus, WorkerBus
from flmq.observe.events import (
    ClientOutcome,
    ClientPresence,
    EventsDropped,
    Note,
    Outcome,
    Phase,
    PhaseClosed,
    PhaseOpened,
    ReplySent,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
    TaskRef,
    WorkerEvent,
)
from flmq.observe.run_state import Board
from tests.end_to_end.federation import Watch, in_thread
from tests.transport.rigs import PATIENCE


class Stuck:
    """An observer that does not come back from its first event until it is let go."""

    def __init__(self) -> None:
        self.seen: list[RunEvent] = []
        self.go = threading.Event()

    def __call__(self, event: RunEvent) -> None:
        self.seen.append(event)
        self.go.wait(PATIENCE)


def one_round(number: int, clients: int, *, late: bool = False) -> Iterator[RunEvent]:
    """A round in which everybody answers."""
    ids = tuple(f"c{client}" for client in range(clients))
    counts = RoundCounts(asked=clients, accepted=clients)
    yield PhaseOpened(number, Phase.FIT, ids, None)
    for client_id in ids:
        yield ClientPresence(client_id, "away" if number % 2 else "online", "", clients)
        yield ClientOutcome(number, Phase.FIT, client_id, Outcome.ACCEPTED)
    if late:
        yield ClientOutcome(number, Phase.FIT, "c0", Outcome.DUPLICATE)
    yield PhaseClosed(number, Phase.FIT, counts, 1.0, 0, 0, "all answered")
    yield RoundClosed(number, 9, counts, RoundCounts(), 1.0 / number, {}, 1.0, 0, 0)


def test_an_observer_that_does_not_come_back_is_named_and_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go = threading.Event()

    def never(event: RunEvent) -> None:
        go.wait(PATIENCE)

    bus = EventBus([never], stuck_after=0.05)
    bus.emit(Note("first"))
    bus.emit(Note("second"))
    in_thread(bus.close).result(PATIENCE / 2)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "never, has not come back from Note" in said
    assert said.endswith("it is not told what followed, 1 events")
    go.set()


def test_a_slow_observer_is_waited_for_as_long_as_it_comes_back() -> None:
    seen = []
    pause = threading.Event()

    def slow(event: RunEvent) -> None:
        pause.wait(0.02)
        seen.append(event)

    bus = EventBus([slow], stuck_after=5.0)
    for i in range(20):
        bus.emit(Note(str(i)))
    bus.close()
    bus.close()
    assert [event.text for event in seen if isinstance(event, Note)] == [str(i) for i in range(20)]


@pytest.mark.parametrize("fault", [ValueError, SystemExit, OSError])
def test_what_an_observer_raises_is_logged_and_the_others_are_told(
    caplog: pytest.LogCaptureFixture, fault: type[BaseException]
) -> None:
    seen: list[RunEvent] = []

    def faulty(event: RunEvent) -> None:
        raise fault("so")

    bus = EventBus([faulty, seen.append])
    bus.emit(Note("first"))
    bus.emit(Note("second"))
    bus.close()
    assert seen == [Note("first"), Note("second")]
    assert len([record for record in caplog.records if record.levelno == logging.ERROR]) == 2


def test_an_observer_that_is_stuck_holds_up_no_other_and_no_event() -> None:
    stuck, watch = Stuck(), Watch()
    bus = EventBus([stuck, watch], limit=100, stuck_after=0.05)
    for number in range(1, 51):
        for event in one_round(number, clients=10):
            bus.emit(event)
        watch.wait_for(RoundClosed, count=number)
    bus.emit(RunEnded("job", 50, 1.0))
    watch.wait_for(RunEnded)
    assert len(watch.rounds()) == 50
    assert len(watch.of(ClientOutcome)) == 500
    stuck.go.set()
    bus.close()


def test_what_a_slow_observer_is_not_told_is_counted_and_rounds_are_never_left_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stuck, board, again = Stuck(), Board(), Board()
    bus = EventBus([stuck], limit=100)
    events: list[RunEvent] = [RunStarted("job", 9, "FedAvg", "in memory")]
    for number in range(1, 51):
        events += one_round(number, clients=10)
    for event in (*events, RunEnded("job", 50, 1.0)):
        bus.emit(event)
        board.apply(event, 0.0)
    stuck.go.set()
    bus.close()
    dropped: Counter[str] = Counter()
    for event in stuck.seen:
        again.apply(event, 0.0)
        if isinstance(event, EventsDropped):
            dropped.update(event.counts)
    assert (again.rounds, again.presence) == (board.rounds, board.presence)
    told = Counter(type(event).__name__ for event in stuck.seen)
    for kind in ("ClientOutcome", "ClientPresence"):
        assert dropped[kind] > 0
        assert dropped[kind] + told[kind] == 500
    assert dropped.keys() == {"ClientOutcome", "ClientPresence"}
    said = caplog.records[-1].getMessage()
    assert "Stuck, is too slow: " in said
    assert said.endswith(" ClientPresence)")


class NotesAlone:
    """Wants notes alone."""

    wanted_events = (Note,)

    def __init__(self) -> None:
        """Have seen nothing."""
        self.seen: list[RunEvent] = []

    def __call__(self, event: RunEvent) -> None:
        """Keep the event."""
        self.seen.append(event)


def test_an_observer_gets_the_events_alone_that_it_wants() -> None:
    early, late = NotesAlone(), NotesAlone()
    bus = EventBus([early])
    for event in (RunStarted("job", 1, "FedAvg", "in memory"), *one_round(1, clients=3)):
        bus.emit(event)
    bus.emit(Note("mind this"))
    bus.attach(late)
    bus.emit(RunEnded("job", 1, 1.0))
    bus.close()
    assert early.seen == late.seen == [Note("mind this")]


def test_who_comes_late_stands_where_everybody_stands() -> None:
    """Without a journal: rounds, clients and the open round, and nothing twice."""
    boards = []
    bus = EventBus()

    def observe() -> None:
        board = Board()
        boards.append(board)
        bus.attach(lambda event: board.apply(event, 0.0))

    observe()
    bus.emit(RunStarted("job", 9, "FedAvg", "in memory"))
    for number in range(1, 6):
        for event in one_round(number, clients=3, late=True):
            bus.emit(event)
            observe()
        bus.emit(ClientOutcome(number, Phase.FIT, "c1", Outcome.DUPLICATE))
        observe()
    bus.close()
    first = boards[0]
    assert first.rounds[0].fit.duplicate == 2
    for board in boards:
        assert (board.rounds, board.presence) == (first.rounds, first.presence)
        assert (board.online, board.awaited) == (first.online, first.awaited)


def test_who_comes_when_all_is_over_is_told_all_the_same() -> None:
    bus = EventBus()
    for event in (RunStarted("job", 1, "FedAvg", "in memory"), *one_round(1, clients=1)):
        bus.emit(event)
    bus.emit(RunEnded("job", 1, 1.0))
    bus.close()
    watch = Watch()
    bus.attach(watch)
    watch.wait_for(RunEnded)
    assert [each.server_round for each in watch.rounds()] == [1]


def test_a_workers_events_are_bounded_too() -> None:
    seen: list[WorkerEvent] = []
    go = threading.Event()

    def slow(event: WorkerEvent) -> None:
        go.wait(PATIENCE)
        seen.append(event)

    bus = WorkerBus([slow], limit=10)
    task = TaskRef("job", 1, Phase.FIT, "a", "id")
    for at in range(100):
        bus.emit(ReplySent(task, float(at)))
    go.set()
    bus.close()
    (dropped,) = [each for each in seen if isinstance(each, EventsDropped)]
    sent = [each.at for each in seen if isinstance(each, ReplySent)]
    assert dropped.counts == {"ReplySent": 100 - len(sent)}
    assert len(sent) <= 11
    assert sent == sorted(sent)
    assert sent[-1] == 99.0
