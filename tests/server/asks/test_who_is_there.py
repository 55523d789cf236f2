"""Which clients there are, and who of them is chosen."""

from __future__ import annotations

import pytest

from flmq.common.errors import (
    NotEnoughClients,
)
from flmq.observe.events import (
    ClientPresence,
    PhaseOpened,
    RoundCounts,
    RunEnded,
)
from flmq.server import SimpleClientManager
from flmq.wire import PresenceKind
from tests.end_to_end.federation import Federation, fed_avg
from tests.server.proxies import IdleProxy


def test_waiting_in_vain_names_who_is_away(federation: Federation) -> None:
    manager = SimpleClientManager(wait_timeout=1.0)
    peer = federation.peer("away")
    server = federation.run(fed_avg(2), client_manager=manager)
    server.watch.wait_for(ClientPresence, lambda p: p.client_id == "away")
    peer.hello(PresenceKind.BYE)
    with pytest.raises(NotEnoughClients) as info:
        server.history()
    assert (info.value.wanted, info.value.have, info.value.away) == (2, 0, ("away",))
    assert "away" in str(server.watch.wait_for(RunEnded).error)


def test_a_client_that_comes_later_is_waited_for(federation: Federation) -> None:
    federation.serve("a")
    server = federation.run(fed_avg(2))
    server.watch.wait_for(ClientPresence, lambda p: p.client_id == "a")
    federation.serve("b")
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2)


def test_clients_are_chosen_by_seed_round_and_id(federation: Federation) -> None:
    names = [f"c{i}" for i in range(6)]

    def asked(seed: int, job: str) -> list[tuple[str, ...]]:
        strategy = fed_avg(6, min_fit_clients=1, fraction_fit=0.5)
        server = federation.run(strategy, rounds=3, seed=seed, job=job)
        server.history()
        return [phase.asked for phase in server.watch.of(PhaseOpened)]

    federation.serve(*names[:3])
    federation.serve(*reversed(names[3:]))
    first = asked(1, "first")
    assert all(len(clients) == 3 for clients in first)
    assert len(set(first)) > 1  # not the same in every round
    assert asked(1, "second") == first
    assert asked(2, "third") != first


def test_waiting_for_clients_does_not_change_whom_one_chooses() -> None:
    """Else the choice would depend on whether they were there already."""
    manager = SimpleClientManager()
    for name in "abcdefgh":
        manager.register(IdleProxy(name))
    manager.begin(1, 1, "fit")
    chosen = manager.sample(3)
    manager.begin(1, 1, "fit")
    assert manager.sample(0, 8) == []
    assert manager.sample(3) == chosen
