"""Who may be there though it has no queue: a round waits for those, and for no ghost."""

from __future__ import annotations

from flmq.server import SimpleClientManager
from flmq.server.presence import PresenceWatcher
from flmq.server.proxy import QueueClientProxy
from flmq.wire import Presence, PresenceKind
from tests.client.test_receipts import Clock


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
