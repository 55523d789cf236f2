"""Partitioners: disjoint, covering, non-empty, seeded; and what each promises of its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from flmq.datasets.errors import CannotPartition
from flmq.datasets.partitioner import (
    PARTITIONS,
    DirichletPartitioner,
    ExponentialPartitioner,
    IidPartitioner,
    LinearPartitioner,
    NaturalIdPartitioner,
    Partitioner,
    PathologicalPartitioner,
    ShardPartitioner,
    SquarePartitioner,
    make_partitioner,
)

Maker = Callable[[int, int], Partitioner]

# A refusal by the Dirichlet partitioner takes a thousand draws, and the machine may be busy.
unhurried = settings(deadline=None)

MAKERS: dict[str, Maker] = {
    "iid": lambda n, seed: IidPartitioner(n, seed),
    "dirichlet": lambda n, seed: DirichletPartitioner(n, 0.5, min_partition_size=1, seed=seed),
    "balanced": lambda n, seed: DirichletPartitioner(n, 0.5, 1, self_balancing=True, seed=seed),
    "pathological": lambda n, seed: PathologicalPartitioner(n, 2, seed),
    "shard": lambda n, seed: ShardPartitioner(n, 2, seed),
    "linear": lambda n, seed: LinearPartitioner(n, seed),
    "square": lambda n, seed: SquarePartitioner(n, seed),
    "exponential": lambda n, seed: ExponentialPartitioner(n, seed),
    "natural id": lambda n, seed: NaturalIdPartitioner(),
}


def labels_of(count: int, classes: int, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(0, classes, count)


@pytest.mark.parametrize("maker", MAKERS.values(), ids=MAKERS.keys())
@unhurried
@given(
    num_partitions=st.integers(1, 8),
    count=st.integers(1, 400),
    classes=st.integers(1, 12),
    seed=st.integers(0, 2**32),
)
def test_parts_are_disjoint_cover_all_are_sorted_and_none_is_empty(
    maker: Maker, num_partitions: int, count: int, classes: int, seed: int
) -> None:
    labels = labels_of(count, classes, seed)
    try:
        parts = maker(num_partitions, seed).partition(labels)
    except CannotPartition:
        # A refusal is an answer; that it comes only where it must is tested by partitioner below.
        assume(False)
    assert all(part.dtype == np.int64 and part.size and (np.diff(part) > 0).all() for part in parts)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(count))
    again = maker(num_partitions, seed).partition(labels)
    assert len(parts) == len(again)
    assert all(np.array_equal(one, other) for one, other in zip(parts, again, strict=True))


@pytest.mark.parametrize(
    "maker",
    [maker for name, maker in MAKERS.items() if name != "natural id"],
    ids=[name for name in MAKERS if name != "natural id"],
)
def test_another_seed_gives_other_parts(maker: Maker) -> None:
    labels = labels_of(1000, 10, 0)
    one, other = maker(5, 1).partition(labels), maker(5, 2).partition(labels)
    assert len(one) == len(other) == 5
    assert any(not np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@unhurried
@given(st.integers(1, 30), st.integers(30, 300))
def test_iid_sizes_differ_by_at_most_one(num_partitions: int, count: int) -> None:
    sizes = [part.size for part in IidPartitioner(num_partitions).partition(np.zeros(count))]
    assert len(sizes) == num_partitions
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("partitioner", "sizes"),
    [
        (LinearPartitioner(4), [100, 200, 300, 400]),
        (SquarePartitioner(4), [33, 133, 300, 534]),
        (ExponentialPartitioner(4), [32, 87, 236, 645]),
    ],
)
def test_sizes_that_grow_are_floors_with_the_rest_in_the_last(
    partitioner: Partitioner, sizes: list[int]
) -> None:
    assert [part.size for part in partitioner.partition(np.zeros(1000))] == sizes


def test_dirichlet_with_a_large_alpha_is_near_equal_and_with_a_small_one_is_not() -> None:
    labels = np.repeat(np.arange(10), 100)

    def classes_held(alpha: float) -> float:
        parts = DirichletPartitioner(10, alpha, min_partition_size=1, seed=3).partition(labels)
        return float(np.mean([np.unique(labels[part]).size for part in parts]))

    assert classes_held(1000.0) == 10
    assert classes_held(0.1) < 6


@pytest.mark.parametrize("seed", range(5))
def test_dirichlet_keeps_its_minimum(seed: int) -> None:
    labels = labels_of(1437, 10, 0)
    parts = DirichletPartitioner(10, 0.1, min_partition_size=20, seed=seed).partition(labels)
    assert min(part.size for part in parts) >= 20


def test_dirichlet_with_self_balancing_is_evener_than_without() -> None:
    labels = np.repeat(np.arange(10), 200)

    def spread(balancing: bool) -> float:
        sizes = [
            [
                part.size
                for part in DirichletPartitioner(10, 0.3, 1, balancing, seed).partition(labels)
            ]
            for seed in range(5)
        ]
        return float(np.std(sizes))

    assert spread(True) < 0.8 * spread(False)


def test_dirichlet_with_a_vanishing_alpha_and_self_balancing_still_covers() -> None:
    labels = np.repeat(np.arange(20), 10)
    parts = DirichletPartitioner(4, 1e-6, 1, self_balancing=True).partition(labels)
    assert sum(part.size for part in parts) == 200


def test_dirichlet_gives_up_after_bounded_draws_and_says_what_to_change() -> None:
    labels = np.repeat(np.arange(2), 100)
    with pytest.raises(CannotPartition, match=r"Dirichlet\(0.001\).*larger alpha"):
        DirichletPartitioner(10, 0.001, min_partition_size=5).partition(labels)


@unhurried
@given(num_partitions=st.integers(1, 20), per_partition=st.integers(1, 10), seed=st.integers(0, 99))
def test_pathological_gives_exactly_c_classes_and_holds_every_class_evenly(
    num_partitions: int, per_partition: int, seed: int
) -> None:
    assume(num_partitions * per_partition >= 10)
    labels = np.tile(np.arange(10), 40)
    parts = PathologicalPartitioner(num_partitions, per_partition, seed).partition(labels)
    held = [np.unique(labels[part]) for part in parts]
    assert [len(mine) for mine in held] == [per_partition] * num_partitions
    holders = np.bincount(np.concatenate(held), minlength=10)
    assert holders.max() - holders.min() <= 1


@unhurried
@given(num_partitions=st.integers(1, 20), num_shards=st.integers(1, 5), seed=st.integers(0, 99))
def test_shards_give_near_equal_parts_of_few_classes(
    num_partitions: int, num_shards: int, seed: int
) -> None:
    labels = np.repeat(np.arange(10), 100)
    parts = ShardPartitioner(num_partitions, num_shards, seed).partition(labels)
    sizes = [part.size for part in parts]
    assert max(sizes) - min(sizes) <= num_shards
    # A shard of up to 1000 / n s samples touches at most that many classes of 100, and one more.
    most = num_shards * (1000 // (num_partitions * num_shards) // 100 + 2)
    assert all(np.unique(labels[part]).size <= most for part in parts)


def test_natural_ids_are_parted_in_their_order_whatever_their_type() -> None:
    parts = NaturalIdPartitioner().partition(np.array(["bob", "alice", "bob", "carol"]))
    assert [part.tolist() for part in parts] == [[1], [0, 2], [3]]


@pytest.mark.parametrize("name", PARTITIONS)
def test_every_name_makes_a_partitioner_that_parts(name: str) -> None:
    parts = make_partitioner(name, 6, alpha=0.5, seed=7).partition(labels_of(1437, 10, 0))
    assert len(parts) == 6


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        (lambda: make_partitioner("uniform", 3), "no partition 'uniform'.*dirichlet.*iid"),
        (lambda: IidPartitioner(0), "num_partitions is 0.*at least 1"),
        (lambda: IidPartitioner(True), "num_partitions is True"),
        (lambda: IidPartitioner(2, seed=-1), "seed is -1.*at least 0"),
        (lambda: DirichletPartitioner(3, 0.0), "alpha is 0.0"),
        (lambda: DirichletPartitioner(3, float("nan")), "alpha is nan"),
        (lambda: DirichletPartitioner(3, 1.0, min_partition_size=0), "min_partition_size is 0"),
        (lambda: IidPartitioner(3).partition(np.zeros((4, 1))), r"shape \(4, 1\)"),
        (lambda: IidPartitioner(3).partition(np.zeros(2)), "2 samples.*at least 3"),
        (lambda: NaturalIdPartitioner().partition(np.zeros(0)), "0 samples"),
        (lambda: ShardPartitioner(3, 2).partition(np.zeros(5)), "5 samples.*at least 6"),
        (lambda: ExponentialPartitioner(12).partition(np.zeros(1000)), "partition 0 without any"),
        (lambda: PathologicalPartitioner(3, 2).partition(np.arange(10)), "cannot hold all 10"),
        (lambda: PathologicalPartitioner(3, 2).partition(np.zeros(10)), "have 1 classes"),
        (
            lambda: PathologicalPartitioner(3, 2).partition(np.array([0, 0, 0, 0, 0, 1])),
            "class 1 has 1 samples for the 3 partitions",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_a_way_out(
    wrong: Callable[[], object], text: str
) -> None:
    with pytest.raises(CannotPartition, match=text):
        wrong()
