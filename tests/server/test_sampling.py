"""Sampling: a choice of clients that is the same for the same seed, round, phase and ids."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import NotEnoughClients
from flmq.server.client_proxy import ClientProxy
from flmq.server.criterion import Criterion
from tests.server.proxies import manager_of


class Named(Criterion):
    def __init__(self, *names: str, include_away: bool = False) -> None:
        self.names = names
        self.include_away = include_away

    def select(self, client: ClientProxy) -> bool:
        return client.cid in self.names


def cids(clients: list[ClientProxy]) -> list[str]:
    return [client.cid for client in clients]


TEN = [f"client-{number}" for number in range(10)]


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
