"""Seeded partitioners: which client holds which sample. Named as in flwr-datasets."""

from __future__ import annotations

from flmq.datasets.partitioner.base import Partitioner
from flmq.datasets.partitioner.by_label import (
    NaturalIdPartitioner,
    PathologicalPartitioner,
    ShardPartitioner,
)
from flmq.datasets.partitioner.by_size import (
    ExponentialPartitioner,
    IidPartitioner,
    LinearPartitioner,
    SquarePartitioner,
)
from flmq.datasets.partitioner.choice import PARTITIONS, make_partitioner
from flmq.datasets.partitioner.dirichlet import DirichletPartitioner

__all__ = [
    "PARTITIONS",
    "DirichletPartitioner",
    "ExponentialPartitioner",
    "IidPartitioner",
    "LinearPartitioner",
    "NaturalIdPartitioner",
    "Partitioner",
    "PathologicalPartitioner",
    "ShardPartitioner",
    "SquarePartitioner",
    "make_partitioner",
]
