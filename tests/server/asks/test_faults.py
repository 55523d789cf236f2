"""Faults of our own, and interrupts: nobody waits for what none hears."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from flmq.observe.events import (
    RunEnded,
)
from flmq.server import SimpleClientManager
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.outcomes import NobodyListens
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.replies.uploading import Uploading
from flmq.wire import JobEnded
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import PATIENCE, eventually


@pytest.mark.parametrize("fault", [ZeroDivisionError, SystemExit])
@pytest.mark.parametrize("opened", [False, True])
def test_replies_that_can_no_longer_be_taken_in_end_the_run(
    memory_federation: Federation,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    opened: bool,
    fault: type[BaseException],
) -> None:
    """Whatever the fault, and also before the round is there: nobody waits for what none hears."""
    breaks = threading.Event()
    give_up_stale, open_phase = Uploading.give_up_stale, ReplyLoop.open

    def faulty(self: Uploading) -> None:
        if breaks.is_set():
            raise fault("a fault of ours")
        give_up_stale(self)

    def dawdling(self: ReplyLoop, *args: Any) -> None:
        if not opened:
            breaks.set()
            eventually(lambda: "replies can no longer be taken in" in caplog.text)
        open_phase(self, *args)

    monkeypatch.setattr(Uploading, "give_up_stale", faulty)
    monkeypatch.setattr(ReplyLoop, "open", dawdling)
    peer = memory_federation.peer("a")
    server = memory_federation.run(fed_avg(1), timeout=None)
    if opened:
        peer.task()
        breaks.set()
    with pytest.raises(NobodyListens, match=f"{fault.__name__}: a fault of ours"):
        server.history()
    assert "replies can no longer be taken in" in caplog.text


def test_an_interrupt_while_clients_are_waited_for_is_told_to_those_that_are_here(
    federation: Federation,
) -> None:
    class Interrupted(SimpleClientManager):
        def wait_for(self, num_clients: int, timeout: float = 0.0) -> bool:
            assert super().wait_for(1, PATIENCE)
            raise KeyboardInterrupt

    peer = federation.peer("a")
    server = federation.run(fed_avg(1), client_manager=Interrupted(), clients=2)
    with pytest.raises(KeyboardInterrupt):
        server.history()
    assert server.watch.wait_for(RunEnded).error == "stopped after round 0"
    assert peer.next(JobEnded).reason == "stopped after round 0"


def test_a_server_that_nobody_tells_of_clients_does_not_wait_for_them(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: PresenceWatcher) -> None:
        raise ZeroDivisionError("a fault of ours")

    monkeypatch.setattr(PresenceWatcher, "tick", breaks)
    server = memory_federation.run(fed_avg(1), timeout=None)
    with pytest.raises(NobodyListens, match="ZeroDivisionError: a fault of ours"):
        server.history()
