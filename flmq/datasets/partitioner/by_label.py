"""Partitioners that assign whole classes, shards of sorted labels, or natural ids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from flmq.datasets.errors import CannotPartition
from flmq.datasets.partitioner.base import (
    Indices,
    Labels,
    Partitioner,
    checked_count,
    checked_labels,
    checked_seed,
    gathered,
)

__all__ = ["NaturalIdPartitioner", "PathologicalPartitioner", "ShardPartitioner"]


class PathologicalPartitioner(Partitioner):
    """Exactly c classes per partition (arXiv:2102.02079).

    Each partition takes the c classes that fewest partitions hold so far, ties broken by the seed;
    so the numbers of partitions that hold each class differ by at most one. The holders of a class
    share its samples near-equally.
    """

    def __init__(self, num_partitions: int, num_classes_per_partition: int, seed: int = 42) -> None:
        """Create ``num_partitions``, each with ``num_classes_per_partition`` classes."""
        self.num_partitions = checked_count("num_partitions", num_partitions)
        self.num_classes_per_partition = checked_count(
            "num_classes_per_partition", num_classes_per_partition
        )
        self.seed = checked_seed(seed)

    def partition(self, labels: Labels) -> list[Indices]:
        """Return the partitions of ``labels`` (shape (n,))."""
        labels = checked_labels(labels, self.num_partitions * self.num_classes_per_partition)
        classes = np.unique(labels)
        self._check_classes(classes.size)
        rng = np.random.default_rng(self.seed)
        held = self._deal_classes(classes.size, rng)
        pieces: list[list[Indices]] = [[] for _ in range(self.num_partitions)]
        for position, label in enumerate(classes):
            holders = np.flatnonzero(held[:, position])
            samples = rng.permutation(np.flatnonzero(labels == label))
            if samples.size < holders.size:
                raise CannotPartition(
                    f"class {label!s} has {samples.size} samples for the {holders.size} partitions "
                    "that hold it: use fewer partitions, fewer classes a partition, or more data"
                )
            for holder, piece in zip(holders, np.array_split(samples, holders.size), strict=True):
                pieces[holder].append(piece)
        return [gathered(mine) for mine in pieces]

    def _check_classes(self, num_classes: int) -> None:
        if self.num_classes_per_partition > num_classes:
            raise CannotPartition(
                f"num_classes_per_partition is {self.num_classes_per_partition} and the labels "
                f"have {num_classes} classes: ask for at most so many"
            )
        if self.num_partitions * self.num_classes_per_partition < num_classes:
            raise CannotPartition(
                f"{self.num_partitions} partitions of {self.num_classes_per_partition} classes "
                f"cannot hold all {num_classes}: use more partitions or more classes a partition"
            )

    def _deal_classes(self, num_classes: int, rng: np.random.Generator) -> NDArray[np.bool_]:
        """Return a mask of which partition (row) holds which class (column)."""
        held = np.zeros((self.num_partitions, num_classes), dtype=np.bool_)
        for row in held:
            taken = held.sum(axis=0)
            row[np.lexsort((rng.random(num_classes), taken))[: self.num_classes_per_partition]] = 1
        return held


class ShardPartitioner(Partitioner):
    """Sort by label, cut into n times s shards, assign s to each of n partitions (McMahan 2017)."""

    def __init__(self, num_partitions: int, num_shards_per_partition: int, seed: int = 42) -> None:
        """Create ``num_partitions``, each of ``num_shards_per_partition`` near-equal shards."""
        self.num_partitions = checked_count("num_partitions", num_partitions)
        self.num_shards_per_partition = checked_count(
            "num_shards_per_partition", num_shards_per_partition
        )
        self.seed = checked_seed(seed)

    def partition(self, labels: Labels) -> list[Indices]:
        """Return the partitions of ``labels`` (shape (n,))."""
        num_shards = self.num_partitions * self.num_shards_per_partition
        labels = checked_labels(labels, num_shards)
        rng = np.random.default_rng(self.seed)
        shuffled = rng.permutation(labels.size)
        by_label = shuffled[np.argsort(labels[shuffled], kind="stable")]
        shards = np.array_split(by_label, num_shards)
        dealt = rng.permutation(num_shards).reshape(self.num_partitions, -1)
        return [gathered([shards[shard] for shard in mine]) for mine in dealt]


class NaturalIdPartitioner(Partitioner):
    """One partition for each id in the data (a writer, a patient, a device), in the ids' order.

    ``labels`` is the column of ids; there are as many partitions as ids.
    """

    def partition(self, labels: Labels) -> list[Indices]:
        """Return the partitions of the samples with these ids (shape (n,))."""
        ids, position = np.unique(checked_labels(labels, 1), return_inverse=True)
        return [np.flatnonzero(position == number).astype(np.int64) for number in range(ids.size)]
