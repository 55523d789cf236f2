"""The client manager: presence, waiting, and a choice that can be made again."""

from __future__ import annotations

import inspect
import logging
import os
import subprocess
import sys
import threading
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import NotEnoughClients
from flmq.server.client_manager import (
    ClientManager,
    ClientState,
    ClientStatus,
    SimpleClientManager,
)
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion
from flmq.testing import ManualClock
from tests.server.proxies import IdleProxy, once_it_waits


class Named(Criterion):
    def __init__(self, *names: str, include_away: bool = False) -> None:
        self.names = names
        self.include_away = include_away

    def select(self, client: ClientProxy) -> bool:
        return client.cid in self.names


def manager_of(*cids: str, seed: int | None = 1, wait_timeout: float = 0.0) -> SimpleClientManager:
    manager = SimpleClientManager(seed=seed, wait_timeout=wait_timeout)
    for cid in cids:
        assert manager.register(IdleProxy(cid))
    return manager


def cids(clients: list[ClientProxy]) -> list[str]:
    return [client.cid for client in clients]


TEN = [f"client-{number}" for number in range(10)]


# --- the contract, as Flower has it


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("num_available", []),
        ("register", ["client"]),
        ("unregister", ["client"]),
        ("all", []),
        ("wait_for", ["num_clients", "timeout"]),
        ("sample", ["num_clients", "min_num_clients", "criterion"]),
    ],
)
def test_the_abstract_manager_has_flowers_methods(method: str, parameters: list[str]) -> None:
    function = getattr(ClientManager, method)
    assert function.__isabstractmethod__
    assert list(inspect.signature(function).parameters)[1:] == parameters


def test_it_is_made_without_arguments_and_empty() -> None:
    manager = SimpleClientManager()
    assert (len(manager), manager.num_available(), manager.all()) == (0, 0, {})
    assert manager.wait_timeout == 86400


def test_a_registered_client_is_there_once() -> None:
    manager = SimpleClientManager()
    first = IdleProxy("alice")
    assert manager.register(first) is True
    assert manager.register(first) is False
    assert manager.register(IdleProxy("alice")) is False
    assert manager.all() == {"alice": first}


def test_unregister_is_idempotent() -> None:
    manager = manager_of("alice")
    manager.unregister(IdleProxy("alice"))
    manager.unregister(IdleProxy("alice"))
    manager.unregister(IdleProxy("never-here"))
    assert manager.num_available() == 0


def test_what_all_gives_is_a_copy() -> None:
    manager = manager_of("alice", "bob")
    manager.all().clear()
    manager.clients.clear()
    assert list(manager.all()) == ["alice", "bob"]


# --- presence


def test_status_says_since_when_and_why() -> None:
    clock = ManualClock(1000.0)
    manager = SimpleClientManager(clock=clock.now)
    alice = IdleProxy("alice")
    alice.properties = {"gpu": True}
    manager.register(alice)
    assert manager.status("alice") == ClientStatus(
        "alice", ClientState.ONLINE, 1000.0, "said hello", {"gpu": True}
    )
    clock.advance(30.0)
    assert manager.set_away("alice", "no heartbeat for 90 s") is True
    clock.advance(10.0)
    assert manager.set_away("alice", "again") is False
    assert manager.status("alice") == ClientStatus(
        "alice", ClientState.AWAY, 1030.0, "no heartbeat for 90 s", {"gpu": True}
    )
    assert manager.set_gone("alice", "said bye") is True
    assert manager.status("alice").state == "gone"
    assert manager.set_away("alice", "no heartbeat") is False, "who is gone is not expected back"
    clock.advance(10.0)
    again = IdleProxy("alice")
    assert manager.register(again) is True
    assert manager.status("alice") == ClientStatus(
        "alice", ClientState.ONLINE, 1050.0, "came back", {}
    )
    assert manager.all()["alice"] is again


def test_a_status_does_not_follow_later_changes() -> None:
    manager = manager_of("alice")
    before = manager.status("alice")
    manager.all()["alice"].properties["gpu"] = True
    assert before.properties == {}
    assert manager.status("alice").properties == {"gpu": True}


def test_known_lists_all_who_have_been_here_in_order_of_ids() -> None:
    manager = manager_of("carol", "alice", "bob")
    manager.set_away("alice", "silent")
    manager.set_gone("bob", "said bye")
    assert [(cid, status.state) for cid, status in manager.known().items()] == [
        ("alice", ClientState.AWAY),
        ("bob", ClientState.GONE),
        ("carol", ClientState.ONLINE),
    ]


def test_nobody_knows_a_client_that_has_never_been_here() -> None:
    manager = manager_of("alice")
    assert manager.set_away("mallory", "silent") is False
    assert manager.set_gone("mallory", "said bye") is False
    assert list(manager.known()) == ["alice"]
    with pytest.raises(KeyError):
        manager.status("mallory")


def test_changes_are_told_in_order_and_only_changes() -> None:
    told: list[tuple[str, str]] = []
    manager = SimpleClientManager(on_change=lambda status: told.append((status.cid, status.state)))
    manager.register(IdleProxy("alice"))
    manager.register(IdleProxy("alice"))
    manager.set_away("alice", "silent")
    manager.set_away("alice", "silent")
    manager.set_gone("alice", "bye")
    manager.register(IdleProxy("alice"))
    assert told == [
        ("alice", "online"),
        ("alice", "away"),
        ("alice", "gone"),
        ("alice", "online"),
    ]


def test_a_listener_may_change_the_manager_and_keeps_the_order() -> None:
    told: list[tuple[str, str]] = []

    def listen(status: ClientStatus) -> None:
        if status.state is ClientState.ONLINE:
            manager.set_away(status.cid, "not wanted")
        told.append((status.cid, status.state))

    manager = SimpleClientManager(on_change=listen)
    manager.register(IdleProxy("alice"))
    assert told == [("alice", "online"), ("alice", "away")]


def test_a_listener_that_fails_is_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def listen(status: ClientStatus) -> None:
        raise ZeroDivisionError(status.cid)

    manager = SimpleClientManager(on_change=listen)
    assert manager.register(IdleProxy("alice"))
    assert "on_change failed for client alice: online" in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_threads_that_come_and_go_leave_the_counts_right() -> None:
    told: Counter[str] = Counter()
    manager = SimpleClientManager(on_change=lambda status: told.update([status.state]))

    def come_and_go(cid: str) -> None:
        for _ in range(200):
            manager.register(IdleProxy(cid))
            manager.set_away(cid, "silent")
        manager.register(IdleProxy(cid))

    threads = [threading.Thread(target=come_and_go, args=(cid,)) for cid in ("a", "b", "a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Two threads share the id "a": whichever came last, it is registered.
    manager.register(IdleProxy("a"))
    assert list(manager.all()) == ["a", "b"]
    assert manager.num_available() == 2
    assert told["online"] == told["away"] + 2


# --- waiting


def test_waiting_ends_when_the_last_client_comes() -> None:
    manager = manager_of("alice")
    # Nothing but the arrivals wakes it within the hour.
    manager.report_every = 3600.0
    late = [IdleProxy("bob"), IdleProxy("carol")]
    with once_it_waits(lambda: [manager.register(client) for client in late]):
        assert manager.wait_for(3, timeout=3600) is True


def test_waiting_ends_without_success_at_the_timeout() -> None:
    manager = manager_of("alice")
    assert manager.wait_for(2, timeout=0) is False
    assert manager.wait_for(2, timeout=0.01) is False
    assert manager.wait_for(1, timeout=0) is True


def test_waiting_says_now_and_then_how_many_are_here(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="flmq.server.client_manager")
    manager = manager_of("alice")
    manager.report_every = 0.01
    assert manager.wait_for(3, timeout=0.1) is False
    lines = [record.getMessage() for record in caplog.records]
    assert lines.count("waiting for clients: 1 of 3 are here") == len(lines) >= 2


def test_waits_end_by_the_clock_that_is_given_and_what_is_told_of_them_may_ask_the_manager() -> (
    None
):
    clock, told = ManualClock(), []
    manager = SimpleClientManager(monotonic=clock.now, wait_timeout=3600.0)
    manager.report_every = 0.01
    manager.register(IdleProxy("alice"))

    def hear(needed: int, online: int) -> None:
        told.append((needed, online, manager.num_available()))
        clock.advance(900.0)

    manager.on_wait = hear
    assert manager.wait_for(2, timeout=1800.0) is False
    assert told == [(2, 1, 1)] * 2
    with pytest.raises(NotEnoughClients) as error:
        manager.sample(2)
    assert error.value.waited == 3600.0


def test_sample_that_waits_in_vain_says_who_is_away() -> None:
    manager = manager_of("alice", "bob", "carol", "dave", wait_timeout=0.01)
    manager.set_away("carol", "silent")
    manager.set_away("bob", "silent")
    manager.set_gone("dave", "said bye")
    with pytest.raises(NotEnoughClients, match="known but away: bob, carol") as error:
        manager.sample(1, min_num_clients=3)
    assert (error.value.wanted, error.value.have, error.value.away) == (3, 1, ("bob", "carol"))
    assert error.value.waited >= 0.01


# --- sampling


def test_the_same_key_and_ids_give_the_same_clients_whatever_the_order_of_arrival() -> None:
    forwards, backwards = manager_of(*TEN, seed=5), manager_of(*reversed(TEN), seed=6)
    for manager in (forwards, backwards):
        manager.begin(42, 3, "fit")
    assert cids(forwards.sample(4)) == cids(backwards.sample(4))


def test_the_choice_is_this_one_on_every_machine_and_version() -> None:
    """Recorded: a change of it would make a running job choose others after an upgrade."""
    manager = manager_of(*TEN)
    manager.begin(42, 1, "fit")
    assert cids(manager.sample(3)) == FIRST_CHOICE
    assert cids(manager.sample(3)) == SECOND_CHOICE
    manager.begin(42, 1, "evaluate")
    assert cids(manager.sample(3)) == EVALUATE_CHOICE
    manager.begin(42, 1, "fit")
    assert cids(manager.sample(3)) == FIRST_CHOICE


FIRST_CHOICE = ["client-7", "client-6", "client-2"]
SECOND_CHOICE = ["client-8", "client-3", "client-0"]
EVALUATE_CHOICE = ["client-1", "client-6", "client-5"]

_PROGRAM = """
from flmq.server.client_manager import SimpleClientManager
from tests.server.proxies import IdleProxy
manager = SimpleClientManager(wait_timeout=0)
for number in range(10):
    manager.register(IdleProxy(f"client-{number}"))
manager.begin(42, 1, "fit")
print(*(client.cid for client in manager.sample(3)))
"""


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_the_choice_does_not_depend_on_the_hash_seed(hash_seed: str) -> None:
    chosen = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    assert chosen.stdout.split() == FIRST_CHOICE


def test_rounds_phases_seeds_and_repeated_draws_choose_differently() -> None:
    manager = manager_of(*(f"client-{number}" for number in range(100)))
    choices = set()
    for key in [(1, 1, "fit"), (1, 1, "evaluate"), (1, 2, "fit"), (2, 1, "fit")]:
        manager.begin(*key)
        choices.add(tuple(cids(manager.sample(50))))
        choices.add(tuple(cids(manager.sample(50))))
    assert len(choices) == 8


def test_every_subset_is_equally_likely() -> None:
    """Chi-squared over the 10 pairs of 5 clients, 9 degrees of freedom: 0.999 quantile 27.9."""
    manager = manager_of(*"abcde")
    seen: Counter[tuple[str, ...]] = Counter()
    for server_round in range(4000):
        manager.begin(7, server_round, "fit")
        seen[tuple(sorted(cids(manager.sample(2))))] += 1
    expected = 4000 / 10
    assert set(seen) == set(combinations("abcde", 2))
    assert sum((count - expected) ** 2 / expected for count in seen.values()) < 27.9


@given(
    ids=st.sets(st.text("abcXYZ019_-", min_size=1, max_size=8), min_size=2, max_size=12),
    data=st.data(),
    seed=st.integers(-(2**63), 2**63 - 1),
)
def test_a_client_that_is_missing_changes_the_choice_by_itself_alone(
    ids: set[str], data: st.DataObject, seed: int
) -> None:
    size = data.draw(st.integers(1, len(ids) - 1))
    missing = data.draw(st.sampled_from(sorted(ids)))
    whole, part = manager_of(*ids), manager_of(*(ids - {missing}))
    for manager in (whole, part):
        manager.begin(seed, 1, "fit")
    with_it, without_it = cids(whole.sample(size)), cids(part.sample(size))
    assert len(set(with_it)) == len(set(without_it)) == size
    assert [cid for cid in with_it if cid != missing] == without_it[: size - (missing in with_it)]


def test_without_begin_the_constructors_seed_decides_and_no_seed_is_fresh() -> None:
    many = [f"client-{number}" for number in range(200)]
    first, second = manager_of(*many, seed=9), manager_of(*many, seed=9)
    assert cids(first.sample(100)) == cids(second.sample(100))
    fresh = {tuple(cids(manager_of(*many, seed=None).sample(100))) for _ in range(3)}
    assert len(fresh) == 3


def test_only_online_clients_are_chosen() -> None:
    manager = manager_of(*TEN)
    manager.set_away("client-0", "silent")
    manager.set_gone("client-1", "said bye")
    assert sorted(cids(manager.sample(8))) == TEN[2:]


def test_a_criterion_selects() -> None:
    manager = manager_of(*TEN)
    chosen = manager.sample(2, criterion=Named("client-3", "client-5"))
    assert sorted(cids(chosen)) == ["client-3", "client-5"]


def test_a_criterion_may_include_who_is_away_but_not_who_is_gone() -> None:
    manager = manager_of("alice", "bob", "carol")
    manager.set_away("bob", "silent")
    manager.set_gone("carol", "said bye")
    everybody = Named("alice", "bob", "carol", include_away=True)
    assert sorted(cids(manager.sample(2, criterion=everybody))) == ["alice", "bob"]
    with pytest.raises(NotEnoughClients):
        manager.sample(3, criterion=everybody)


def test_fewer_than_asked_for_gives_nobody_and_says_why(caplog: pytest.LogCaptureFixture) -> None:
    manager = manager_of("alice", "bob", "carol")
    assert manager.sample(5, min_num_clients=2) == []
    assert manager.shortfall == "5 clients are to be asked and 3 are available"
    assert manager.sample(2, criterion=Named("bob")) == []
    assert manager.shortfall == "2 clients are to be asked and 1 are selected by Named"
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert len(manager.sample(2)) == 2
    assert manager.shortfall is None


def test_begin_forgets_the_last_rounds_shortfall() -> None:
    manager = manager_of("alice")
    manager.sample(2, min_num_clients=1)
    manager.begin(1, 2, "fit")
    assert manager.shortfall is None


def test_nobody_can_be_asked_for_and_less_cannot() -> None:
    manager = manager_of("alice")
    assert manager.sample(0) == []
    assert manager.shortfall is None
    with pytest.raises(ValueError, match="choose 0 or more"):
        manager.sample(-1)
