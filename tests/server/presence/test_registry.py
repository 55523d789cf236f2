"""The registry of clients: any order of events gives the states of the tables in its docstring."""

from __future__ import annotations

import math

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from flmq.common.typing import Scalar
from flmq.server.presence import registry as registry_module
from flmq.server.presence.registry import (
    Change,
    ClientRegistry,
    ClientState,
    Heard,
    HeardChange,
    PropertiesRefused,
)
from flmq.wire import Presence, PresenceKind
from flmq.wire.bounds import size_of_properties
from tests.server.proxies import IdleProxy

HELLO, HEARTBEAT, BYE = PresenceKind.HELLO, PresenceKind.HEARTBEAT, PresenceKind.BYE
ONLINE, AWAY, GONE = ClientState.ONLINE, ClientState.AWAY, ClientState.GONE

# (what is heard, event) -> what is heard then; what is not in it changes nothing.
HEARD: dict[tuple[Heard, str], Heard] = {
    **{(heard, "alive"): Heard.ONLINE for heard in Heard},
    (Heard.ONLINE, "bye"): Heard.LEFT,
    (Heard.SILENT, "bye"): Heard.LEFT,
    (Heard.SILENT, "reply"): Heard.ONLINE,
    (Heard.ONLINE, "silence"): Heard.SILENT,
    **{(heard, "no queue"): Heard.NO_QUEUE for heard in Heard if heard is not Heard.NEVER},
}
LISTED: dict[tuple[ClientState | None, str], ClientState] = {
    **{(listed, "register"): ONLINE for listed in (None, AWAY, GONE)},
    (ONLINE, "away"): AWAY,
    (ONLINE, "gone"): GONE,
    (AWAY, "gone"): GONE,
}

CLIENTS = st.sampled_from("abc")
PROCESSES = st.sampled_from(["first", "second"])
HEARTBEATS = st.sampled_from([1.0, 10.0])
TEXTS = st.sampled_from(["", "x" * 400, "x" * 900])


def presence(
    kind: PresenceKind,
    client_id: str = "a",
    instance: str = "first",
    heartbeat: float = 10.0,
    properties: dict[str, Scalar] | None = None,
) -> Presence:
    return Presence(
        kind, client_id, "main", instance, properties or {}, heartbeat_seconds=heartbeat
    )


class _Model:
    """One client, as the tables have it."""

    def __init__(self) -> None:
        self.heard = Heard.NEVER
        self.process = ""
        self.heartbeat = 0.0
        self.at = -math.inf
        self.properties: dict[str, Scalar] = {}
        self.listed: ClientState | None = None


class RegistryMachine(RuleBasedStateMachine):
    """Feeds a registry and the tables the same events."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.registry = ClientRegistry()
        self.models = {client: _Model() for client in "abc"}

    def hears(self, client: str, event: str, changes: list[Change]) -> None:
        """Have the table say what became of ``event``, and compare what was said of it."""
        model, before = self.models[client], self.online()
        was = model.heard
        model.heard = HEARD.get((was, event), was)
        expected = []
        if (was is Heard.ONLINE) != (model.heard is Heard.ONLINE):
            expected.append((client, ONLINE if model.heard is Heard.ONLINE else AWAY))
            assert abs(self.online() - before) == 1
        if event == "no queue" and was is not model.heard:
            expected.append((client, GONE))
        said = [change for change in changes if isinstance(change, HeardChange)]
        assert [(change.proxy.cid, change.state) for change in said] == expected
        assert all(change.online == self.online() for change in said)

    def online(self) -> int:
        return sum(model.heard is Heard.ONLINE for model in self.models.values())

    @rule(
        kind=st.sampled_from([HELLO, HEARTBEAT]),
        client=CLIENTS,
        process=PROCESSES,
        heartbeat=HEARTBEATS,
        text=TEXTS,
    )
    def alive(
        self, kind: PresenceKind, client: str, process: str, heartbeat: float, text: str
    ) -> None:
        model, properties = self.models[client], {"notes": text}
        said = presence(kind, client, process, heartbeat, {"notes": text})
        changes = self.registry.hear(said, self.now, IdleProxy)
        if model.heard is Heard.LEFT and model.process == process:
            assert changes == []
            return
        others = sum(
            size_of_properties(each.properties.items())
            for each in self.models.values()
            if each is not model
        )
        fits = others + size_of_properties(properties.items()) <= ROOM
        model.properties = {"notes": text} if fits else {}
        new = model.process != process or model.heard in (Heard.NEVER, Heard.NO_QUEUE)
        refused = [change for change in changes if isinstance(change, PropertiesRefused)]
        assert [change.client_id for change in refused] == ([client] if new and not fits else [])
        model.process, model.heartbeat, model.at = process, heartbeat, self.now
        self.hears(client, "alive", changes)

    @rule(client=CLIENTS, process=PROCESSES)
    def bye(self, client: str, process: str) -> None:
        model = self.models[client]
        changes = self.registry.hear(presence(BYE, client, process), self.now, IdleProxy)
        own = model.process == process
        if own and model.heard in (Heard.ONLINE, Heard.SILENT):
            model.at = -math.inf
        self.hears(client, "bye" if own else "another's bye", changes)

    @rule(client=CLIENTS)
    def reply(self, client: str) -> None:
        model = self.models[client]
        if model.heard in (Heard.ONLINE, Heard.SILENT):
            model.at = self.now
        self.hears(client, "reply", self.registry.seen(client, self.now))

    @rule(client=CLIENTS)
    def no_queue(self, client: str) -> None:
        self.hears(client, "no queue", self.registry.queue_gone(client))

    @rule(seconds=st.sampled_from([0.0, 1.0, 3.4, 3.6, 20.0, 26.5]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        changes = self.registry.tick(self.now)
        silent = [
            client
            for client, model in self.models.items()
            if model.heard is Heard.ONLINE and self.now - model.at > 2.5 * model.heartbeat + 1
        ]
        said = [change for change in changes if isinstance(change, HeardChange)]
        assert sorted(change.proxy.cid for change in said) == silent
        assert {change.state for change in said} <= {AWAY}
        for client in silent:
            self.models[client].heard = HEARD[self.models[client].heard, "silence"]

    @rule(client=CLIENTS, event=st.sampled_from(["register", "away", "gone"]))
    def manage(self, client: str, event: str) -> None:
        model = self.models[client]
        if event == "register":
            status = self.registry.register(IdleProxy(client), self.now)
        else:
            status = self.registry.unlist(client, ClientState(event), "so", self.now)
        expected = LISTED.get((model.listed, event))
        assert (None if status is None else status.state) == expected
        model.listed = expected or model.listed

    @rule()
    def another_run(self) -> None:
        self.registry.start_run()
        for model in self.models.values():
            model.heard, model.process, model.at = Heard.NEVER, "", -math.inf
            model.properties = {}

    @invariant()
    def is_as_the_tables_say(self) -> None:
        for client, model in self.models.items():
            known = self.registry.find(client)
            if known is None:
                assert (model.heard, model.listed) == (Heard.NEVER, None)
                continue
            assert (known.heard, known.listed) == (model.heard, model.listed)
            assert known.last_heard == model.at
            if model.heard is not Heard.NEVER:
                assert known.proxy.properties == model.properties
            for process in ("first", "second"):
                here = model.heard not in (Heard.NEVER, Heard.NO_QUEUE)
                assert known.is_process(process) == (here and model.process == process)

    @invariant()
    def the_counts_are_right(self) -> None:
        for include_away in (False, True):
            states = {ONLINE, AWAY} if include_away else {ONLINE}
            listed = [client for client, model in self.models.items() if model.listed in states]
            clients = self.registry.listed(include_away=include_away)
            assert sorted(client.cid for client in clients) == listed
            assert self.registry.count(include_away=include_away) == len(listed)
        known = {status.cid: status.state for status in self.registry.statuses()}
        models = {client: model.listed for client, model in self.models.items()}
        assert known == {client: listed for client, listed in models.items() if listed}


ROOM = 1500


@pytest.fixture(autouse=True)
def _little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_ALL_PROPERTIES_BYTES", ROOM)


TestRegistry = RegistryMachine.TestCase
TestRegistry.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_what_a_manager_made_of_a_client_is_listed_and_its_proxy_still_hears() -> None:
    """A manager may register something else for a client: say, a proxy around its proxy."""
    registry, of_user = ClientRegistry(), IdleProxy("a")
    (came,) = registry.hear(presence(HELLO), 0.0, IdleProxy)
    registry.register(of_user, 0.0)
    registry.hear(presence(HEARTBEAT, properties={"gpu": True}), 10.0, IdleProxy)
    (left,) = registry.hear(presence(BYE), 20.0, IdleProxy)
    assert isinstance(came, HeardChange)
    assert isinstance(left, HeardChange)
    assert registry.listed() == [of_user]
    assert left.proxy is came.proxy is not of_user
    assert came.proxy.properties == {"gpu": True}


def test_another_run_hears_all_anew_by_proxies_of_its_own() -> None:
    registry = ClientRegistry()
    (before,) = registry.hear(presence(HELLO), 0.0, IdleProxy)
    assert isinstance(before, HeardChange)
    registry.register(before.proxy, 0.0)
    registry.start_run()
    assert registry.listed() == [before.proxy]
    (again,) = registry.hear(presence(HELLO), 5.0, IdleProxy)
    assert isinstance(again, HeardChange)
    assert again.proxy is not before.proxy
    assert again.online == 1


def test_all_are_gone_through_only_when_somebody_may_have_fallen_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ten thousand clients are not looked at each second."""
    registry = ClientRegistry()
    for number in range(100):
        registry.hear(presence(HELLO, f"client-{number}"), float(number % 10), IdleProxy)
    looked = 0
    patience = registry_module.KnownClient.patience

    def count(known: registry_module.KnownClient) -> float:
        nonlocal looked
        looked += 1
        return float(patience.fget(known))  # type: ignore[attr-defined]

    monkeypatch.setattr(registry_module.KnownClient, "patience", property(count))
    for second in range(10, 26):
        assert registry.tick(second) == []
    assert looked == 0
    assert len(registry.tick(26.5)) == 10
    looked = 0
    assert registry.tick(26.9) == []
    assert looked == 0
