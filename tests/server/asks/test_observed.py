"""An observer that fails or is slow harms no run."""

from __future__ import annotations

import time

import pytest

from flmq.observe.events import (
    RunEnded,
)
from tests.end_to_end.federation import Federation, fed_avg


def test_an_observer_that_cannot_write_says_so_on_one_line(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    def observer(event: object) -> None:
        if isinstance(event, RunEnded):
            raise OSError(28, "No space left on device", "history.json")

    memory_federation.serve("a")
    memory_federation.run(fed_avg(1), observers=(observer,)).history()
    [said] = [each for each in caplog.records if "an observer" in each.message]
    assert "RunEnded: [Errno 28] No space left on device: 'history.json'" in said.message
    assert said.exc_info is None


def test_an_observer_that_raises_or_is_slow_harms_nobody(memory_federation: Federation) -> None:
    memory_federation.serve("a")
    seen: list[object] = []

    def observer(event: object) -> None:
        seen.append(event)
        time.sleep(0.01)
        raise RuntimeError("a broken view")

    server = memory_federation.run(fed_avg(1), rounds=2, observers=(observer,))
    server.history()
    assert seen == server.watch.events
