"""The client manager: Flower's contract, who is listed, and waiting for clients."""

from __future__ import annotations

import inspect
import logging
import threading
from collections import Counter

import pytest

from flmq.common.errors import NotEnoughClients
from flmq.server.client_manager import (
    ClientManager,
    ClientState,
    ClientStatus,
    SimpleClientManager,
)
from flmq.testing import ManualClock
from tests.server.proxies import IdleProxy, manager_of, once_it_waits

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
