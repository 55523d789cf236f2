"""Partitioners by the short names used on the command line and in client properties."""

from __future__ import annotations

from collections.abc import Callable

from flmq.datasets.errors import CannotPartition
from flmq.datasets.partitioner.base import Partitioner
from flmq.datasets.partitioner.by_label import PathologicalPartitioner, ShardPartitioner
from flmq.datasets.partitioner.by_size import (
    ExponentialPartitioner,
    IidPartitioner,
    LinearPartitioner,
    SquarePartitioner,
)
from flmq.datasets.partitioner.dirichlet import DirichletPartitioner

__all__ = ["PARTITIONS", "make_partitioner"]

_CLASSES_PER_CLIENT = 2
"""Classes or shards per client, as in the experiments of McMahan 2017."""

_MAKERS: dict[str, Callable[[int, float, int], Partitioner]] = {
    "dirichlet": lambda n, alpha, seed: DirichletPartitioner(n, alpha, seed=seed),
    "exponential": lambda n, _, seed: ExponentialPartitioner(n, seed),
    "iid": lambda n, _, seed: IidPartitioner(n, seed),
    "linear": lambda n, _, seed: LinearPartitioner(n, seed),
    "pathological": lambda n, _, seed: PathologicalPartitioner(n, _CLASSES_PER_CLIENT, seed),
    "shard": lambda n, _, seed: ShardPartitioner(n, _CLASSES_PER_CLIENT, seed),
    "square": lambda n, _, seed: SquarePartitioner(n, seed),
}

PARTITIONS: tuple[str, ...] = tuple(sorted(_MAKERS))
"""The names that ``make_partitioner`` accepts."""


def make_partitioner(
    name: str, num_partitions: int, alpha: float = 0.5, seed: int = 42
) -> Partitioner:
    """Return the partitioner called ``name``; ``alpha`` applies to "dirichlet" only.

    "pathological" and "shard" give 2 classes or shards per partition.

    Raises:
        CannotPartition: the name is not in ``PARTITIONS``.
    """
    maker = _MAKERS.get(name)
    if maker is None:
        raise CannotPartition(
            f"there is no partition {name!r}: choose one of {', '.join(PARTITIONS)}"
        )
    return maker(num_partitions, alpha, seed)
