"""Who may be there though it has no queue: a round waits for those, and for no ghost."""

from __future__ import annotations

import pytest

from flmq.observe.events import ClientOutcome, Outcome
from flmq.server import SimpleClientManager
from flmq.server.asks.queue_client_proxy import QueueClientProxy
from flmq.server.presence.watcher import PresenceWatcher
from flmq.wire import Presence, PresenceKind
from tests.client.test_receipts import Clock
from tests.end_to_end.federation import Federation, fed_avg


def test_who_was_heard_and_has_not_left_was_there_whether_or_not_it_is_heard_now() -> None:
    clock = Clock()
    watcher = PresenceWatcher(
        SimpleClientManager(),
        lambda client_id: QueueClientProxy(client_id, None),  # type: ignore[arg-type]
        lambda event: None,
        clock,
    )

    def hear(kind: PresenceKind, instance: str = "first") -> None:
        watcher.hear(Presence(kind, "a", "main", instance, heartbeat_seconds=1.0))

    assert not watcher.was_there("a", 0.0)  # never heard of
    hear(PresenceKind.HELLO)
    heard = clock.now
    clock.now += 60
    watcher.tick()
    assert not watcher.is_online("a")
    assert watcher.was_there("a", heard - 120)
    assert not watcher.was_there("a", heard + 1)  # it had long been away by then
    hear(PresenceKind.BYE)
    assert not watcher.was_there("a", heard - 120)
    hear(PresenceKind.HELLO, "second")
    assert watcher.was_there("a", clock.now)


def test_who_is_still_behind_is_asked_and_said_to_be_behind(
    memory_federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    quick, slow = memory_federation.peer("quick"), memory_federation.peer("slow")
    server = memory_federation.run(fed_avg(2), rounds=4, timeout=1.0)
    tasks = []
    for number in range(4):
        quick.reply(quick.task())
        tasks.append(slow.task())
        if number == 2:
            for task in tasks[1:]:  # in time again
                slow.reply(task)
    server.history()
    outcomes = [o for o in server.watch.of(ClientOutcome) if o.client_id == "slow"]
    silent = {o.server_round: o.reason for o in outcomes if o.outcome is Outcome.SILENT}
    behind = "deadline; it has not answered round 1, fit yet either"
    assert silent == {1: "deadline", 2: behind, 4: "deadline"}
    said = [each for each in caplog.messages if "may still be at work" in each]
    assert [each.rpartition(": ")[2] for each in said] == [
        "slow (round 1, fit)",
        "slow (round 2, fit)",
    ]
