"""What is heard of clients, in whatever order, and what a ClientManager is told of it."""

from __future__ import annotations

import threading

import pytest

from flmq.common import GetPropertiesIns
from flmq.common.typing import Scalar
from flmq.observe.events import ClientPresence, RunEvent
from flmq.server import SimpleClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.presence import registry as registry_module
from flmq.server.presence.watcher import PresenceWatcher
from flmq.wire import Presence, PresenceKind
from tests.end_to_end.federation import Federation, fed_avg
from tests.server.proxies import IdleProxy
from tests.transport.rigs import PATIENCE


class _Ear:
    """A watcher, by whatever manager."""

    def __init__(self, manager: SimpleClientManager | None = None) -> None:
        self.now = 0.0
        self.events: list[RunEvent] = []
        self.manager = SimpleClientManager() if manager is None else manager
        self.watcher = PresenceWatcher(
            self.manager, IdleProxy, self.events.append, clock=lambda: self.now
        )

    def hear(
        self,
        kind: PresenceKind,
        instance: str = "first",
        *,
        client_id: str = "a",
        properties: dict[str, Scalar] | None = None,
        refused: str = "",
    ) -> None:
        self.watcher.hear(
            Presence(
                kind,
                client_id,
                "main",
                instance,
                properties or {},
                heartbeat_seconds=30.0,
                refused=refused,
            )
        )

    def told(self) -> list[str]:
        """What observers were told in the end."""
        self.watcher.close()
        return [event.reason for event in self.events if isinstance(event, ClientPresence)]


def test_what_is_heard_of_a_process_after_its_bye_was_on_its_way_before() -> None:
    ear = _Ear()
    ear.hear(PresenceKind.HELLO)
    ear.hear(PresenceKind.BYE)
    ear.watcher.seen("a")  # a reply, by another queue
    ear.hear(PresenceKind.HEARTBEAT)
    ear.hear(PresenceKind.HELLO)
    assert not ear.watcher.is_online("a")
    ear.hear(PresenceKind.HELLO, "second")
    ear.watcher.seen("a")
    assert ear.watcher.is_online("a")
    assert ear.told() == ["said hello", "said bye", "said hello"]


def test_a_bye_speaks_of_its_own_process_alone() -> None:
    ear = _Ear()
    ear.hear(PresenceKind.HELLO, "first")
    ear.hear(PresenceKind.HELLO, "second")
    ear.hear(PresenceKind.BYE, "first")
    assert ear.watcher.is_online("a")
    ear.hear(PresenceKind.BYE, "second")
    assert not ear.watcher.is_online("a")
    assert ear.told() == ["said hello", "said bye"]


def test_silence_ends_with_a_reply_but_a_queue_that_is_gone_does_not() -> None:
    ear = _Ear()
    ear.hear(PresenceKind.HELLO)
    ear.now = 77.0
    ear.watcher.tick()
    assert not ear.watcher.is_online("a")
    ear.watcher.seen("a")
    assert ear.watcher.is_online("a")
    ear.watcher.gone("a")
    ear.watcher.seen("a")
    assert not ear.watcher.is_online("a")
    hello = Presence(PresenceKind.HELLO, "a", "main", "first")
    assert not ear.watcher.recognizes(hello), "it must show that it has a queue again"
    ear.hear(PresenceKind.HELLO)
    assert ear.watcher.is_online("a")


def test_properties_of_all_clients_together_have_a_bound(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry_module, "_ALL_PROPERTIES_BYTES", 2000)
    ear = _Ear()
    for client_id in ("a", "b", "c"):
        for kind in (PresenceKind.HELLO, PresenceKind.HEARTBEAT):
            ear.hear(kind, client_id=client_id, properties={"notes": "x" * 900})
    ear.hear(PresenceKind.HELLO, client_id="d", refused="300 properties: 256 at most")
    ear.told()
    here = ear.manager.all()
    assert [len(here[each].properties) for each in "abcd"] == [1, 1, 0, 0]
    begin = "client {} takes part without its properties: {}"
    assert [record.getMessage() for record in caplog.records] == [
        begin.format("c", "no room: properties of 1810 bytes are kept of all clients"),
        begin.format("d", "300 properties: 256 at most"),
    ]
    # Who has fewer makes room.
    ear.hear(PresenceKind.HEARTBEAT, client_id="a")
    ear.hear(PresenceKind.HEARTBEAT, client_id="c", properties={"notes": "x" * 900})
    assert len(here["c"].properties) == 1


def test_a_manager_that_does_not_come_back_is_named_and_holds_up_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    go, within = threading.Event(), threading.Event()

    class Stuck(SimpleClientManager):
        def register(self, client: ClientProxy) -> bool:
            within.set()
            go.wait(PATIENCE)
            return super().register(client)

    ear = _Ear(Stuck())
    ear.hear(PresenceKind.HELLO)
    assert within.wait(PATIENCE)
    ear.now = 31.0
    ear.watcher.tick()
    ear.watcher.seen("a")
    assert ear.watcher.is_online("a")
    assert "Stuck.register(a) has not come back for 30 s" in caplog.text
    assert ear.events == []
    go.set()
    assert ear.told() == ["said hello"]


@pytest.mark.parametrize("fault", [ValueError, SystemExit])
def test_what_a_manager_raises_is_logged_and_it_is_told_of_the_next_client(
    caplog: pytest.LogCaptureFixture, fault: type[BaseException]
) -> None:
    class Faulty(SimpleClientManager):
        def register(self, client: ClientProxy) -> bool:
            if client.cid == "a":
                raise fault("so")
            return super().register(client)

    ear = _Ear(Faulty())
    ear.hear(PresenceKind.HELLO, client_id="a")
    ear.hear(PresenceKind.HELLO, client_id="b")
    assert ear.told() == ["said hello", "said hello"]
    assert list(ear.manager.all()) == ["b"]
    assert "Faulty.register(a) failed" in caplog.text


def test_a_manager_may_ask_the_client_that_it_is_told_of(federation: Federation) -> None:
    """Under a lock of ours, or on the thread that hears replies, this would wait for ever."""
    asked: list[dict[str, Scalar]] = []

    class Curious(SimpleClientManager):
        def register(self, client: ClientProxy) -> bool:
            asked.append(client.get_properties(GetPropertiesIns({}), PATIENCE).properties)
            return super().register(client)

    federation.serve("a", "b")
    server = federation.run(fed_avg(2), client_manager=Curious())
    server.history()
    assert len(asked) == 2
    assert server.watch.rounds()[0].fit.accepted == 2
