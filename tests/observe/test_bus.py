"""Events come to every observer, and none of them can hold up or end the run."""

from __future__ import annotations

import logging
import threading

import pytest

from flmq.observe.bus import EventBus
from flmq.observe.events import Note, RunEvent
from tests.end_to_end.federation import in_thread
from tests.transport.rigs import PATIENCE


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
    assert said.endswith("observed by nobody, 1 events")
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
