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
from flmq.testing import ManualClock
from flmq.wire import Presence, PresenceKind
from tests.end_to_end.federation import Federation, fed_avg
from tests.server.proxies import IdleProxy
from tests.transport.rigs import PATIENCE, eventually


class _Ear:
    """A watcher, by whatever manager."""

    def __init__(self, manager: SimpleClientManager | None = None) -> None:
        self.clock = ManualClock()
        self.events: list[RunEvent] = []
        self.manager = SimpleClientManager() if manager is None else manager
        self.watcher = PresenceWatcher(self.manager, IdleProxy, self.events.append, self.clock.now)

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
    ear.clock.advance(77.0)
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


def test_observers_are_told_that_a_client_is_gone_which_is_away_already() -> None:
    ear = _Ear()
    ear.hear(PresenceKind.HELLO)
    ear.hear(PresenceKind.BYE)
    ear.watcher.gone("a")
    ear.watcher.gone("a")
    assert ear.told() == ["said hello", "said bye", "its queue is gone"]
    assert [each.status for each in ear.events if isinstance(each, ClientPresence)] == [
        "online", "away", "gone",
    ]  # fmt: skip


def test_who_was_heard_and_has_not_left_was_there_whether_or_not_it_is_heard_now() -> None:
    ear = _Ear()
    ear.clock.advance(1000.0)
    assert not ear.watcher.was_there("a", 0.0)  # never heard of
    ear.hear(PresenceKind.HELLO)
    heard = ear.clock.now()
    ear.clock.advance(100.0)
    ear.watcher.tick()
    assert not ear.watcher.is_online("a")
    assert ear.watcher.was_there("a", heard - 120)
    assert not ear.watcher.was_there("a", heard + 1)  # it had long been away by then
    ear.hear(PresenceKind.BYE)
    assert not ear.watcher.was_there("a", heard - 120)
    ear.hear(PresenceKind.HELLO, "second")
    assert ear.watcher.was_there("a", ear.clock.now())


def test_a_second_run_with_the_same_manager_hears_its_clients_anew() -> None:
    first = _Ear()
    first.hear(PresenceKind.HELLO)
    first.told()
    second = _Ear(first.manager)
    assert not second.watcher.knows("a")
    assert list(second.manager.all()) == ["a"], "whom a manager lists, it lists until it is told"
    hello = Presence(PresenceKind.HELLO, "a", "main", "first")
    assert not second.watcher.recognizes(hello)
    second.hear(PresenceKind.HELLO)
    second.hear(PresenceKind.BYE)
    assert second.told() == ["said hello", "said bye"]
    assert second.manager.status("a").state == "away"


def test_whom_user_code_takes_from_the_list_stays_away_until_it_comes_back() -> None:
    ear = _Ear()
    ear.hear(PresenceKind.HELLO)
    eventually(lambda: ear.manager.num_available() == 1)
    ear.manager.unregister(ear.manager.all()["a"])
    ear.hear(PresenceKind.HEARTBEAT)
    ear.watcher.seen("a")
    assert ear.watcher.is_online("a"), "what it was asked goes on"
    assert ear.manager.num_available() == 0
    ear.hear(PresenceKind.BYE)
    ear.hear(PresenceKind.HELLO, "second")
    ear.told()
    assert ear.manager.num_available() == 1


def test_threads_that_hear_and_choose_at_once_leave_the_registry_whole() -> None:
    """What is heard and what is listed stand in one registry, under one lock."""
    ear, over = _Ear(), threading.Event()

    def choose() -> None:
        while not over.is_set():
            ear.manager.sample(ear.manager.num_available() // 2, 0)
            ear.manager.known()

    def come_and_go(client_id: str) -> None:
        for number in range(100):
            ear.hear(PresenceKind.HELLO, f"process-{number}", client_id=client_id)
            ear.watcher.seen(client_id)
            ear.hear(PresenceKind.BYE, f"process-{number}", client_id=client_id)
        ear.hear(PresenceKind.HELLO, "the last", client_id=client_id)

    chooser = threading.Thread(target=choose)
    guests = [threading.Thread(target=come_and_go, args=(client_id,)) for client_id in "abc"]
    for thread in (chooser, *guests):
        thread.start()
    for thread in guests:
        thread.join()
    assert len(ear.told()) == 3 * 201
    over.set()
    chooser.join()
    assert list(ear.manager.all()) == ["a", "b", "c"]
    online = [event.online for event in ear.events if isinstance(event, ClientPresence)]
    assert online[-1] == 3
    assert all(0 <= count <= 3 for count in online)


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
    ear.clock.advance(31.0)
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
