"""Partitioners that set sizes only: near-equal, linear, square, exponential."""

from __future__ import annotations

from abc import abstractmethod

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

__all__ = [
    "ExponentialPartitioner",
    "IidPartitioner",
    "LinearPartitioner",
    "SquarePartitioner",
]


class _SizePartitioner(Partitioner):
    """Shuffle the samples and cut them into the subclass's sizes."""

    def __init__(self, num_partitions: int, seed: int = 42) -> None:
        """Create ``num_partitions`` of samples shuffled by ``seed``."""
        self.num_partitions = checked_count("num_partitions", num_partitions)
        self.seed = checked_seed(seed)

    def partition(self, labels: Labels) -> list[Indices]:
        """Return the partitions; only the number of ``labels`` matters."""
        count = checked_labels(labels, self.num_partitions).size
        order = np.random.default_rng(self.seed).permutation(count)
        return [gathered([part]) for part in np.split(order, np.cumsum(self._sizes(count))[:-1])]

    @abstractmethod
    def _sizes(self, count: int) -> NDArray[np.int64]:
        """Return the sizes, shape (num_partitions,), each at least 1, summing to ``count``."""


class IidPartitioner(_SizePartitioner):
    """Near-equal parts of the shuffled samples: sizes differ by at most one."""

    def _sizes(self, count: int) -> NDArray[np.int64]:
        whole, rest = divmod(count, self.num_partitions)
        sizes: NDArray[np.int64] = np.full(self.num_partitions, whole, dtype=np.int64)
        sizes[:rest] += 1
        return sizes


class _GrowingPartitioner(_SizePartitioner):
    """Sizes proportional to a growing weight of the partition's number."""

    def _sizes(self, count: int) -> NDArray[np.int64]:
        weights = self._weights(np.arange(self.num_partitions, dtype=np.float64))
        sizes: NDArray[np.int64] = np.floor(weights / weights.sum() * count).astype(np.int64)
        # The remainder of rounding down goes to the largest partition, where it matters least.
        sizes[-1] += count - sizes.sum()
        if sizes.min() < 1:
            raise CannotPartition(
                f"{type(self).__name__} over {self.num_partitions} partitions leaves partition "
                f"{int(sizes.argmin())} without any of the {count} samples: use fewer partitions "
                "or more data"
            )
        return sizes

    @abstractmethod
    def _weights(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the weight of each partition number, both of shape (num_partitions,)."""


class LinearPartitioner(_GrowingPartitioner):
    """Partition k has a size proportional to k + 1."""

    def _weights(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return numbers + 1


class SquarePartitioner(_GrowingPartitioner):
    """Partition k has a size proportional to (k + 1) squared."""

    def _weights(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        return (numbers + 1) ** 2


class ExponentialPartitioner(_GrowingPartitioner):
    """Partition k has a size proportional to exp(k): the last holds 63 % of all."""

    def _weights(self, numbers: NDArray[np.float64]) -> NDArray[np.float64]:
        # Relative to the largest, so that no number of partitions overflows.
        weights: NDArray[np.float64] = np.exp(numbers - numbers[-1])
        return weights
