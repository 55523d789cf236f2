"""The interface of all partitioners, and the checks that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.datasets.errors import CannotPartition

__all__ = ["Indices", "Labels", "Partitioner"]

Labels = NDArray[Any]
"""Shape (n,): one label or id per sample, of any sortable dtype."""
Indices = NDArray[np.int64]
"""Shape (k,), ascending: the samples of one partition, as indices into the labels."""


class Partitioner(ABC):
    """Partition samples 0..n-1: disjoint, covering all, none empty.

    The result depends on the constructor's arguments and the labels alone: the same seed gives the
    same partitions in every process, so that each client can compute its own.
    """

    @abstractmethod
    def partition(self, labels: Labels) -> list[Indices]:
        """Return the partitions of the samples with these ``labels`` (shape (n,)), by number.

        Raises:
            CannotPartition: the labels cannot be partitioned as requested.
        """


def checked_labels(labels: Labels, at_least: int) -> Labels:
    """Return ``labels`` as a one-dimensional array, if there are at least ``at_least``."""
    labels = np.asarray(labels)
    if labels.ndim != 1:
        raise CannotPartition(
            f"labels have shape {labels.shape}: give one label a sample, an array of shape (n,)"
        )
    if labels.size < at_least:
        raise CannotPartition(
            f"{labels.size} samples cannot be parted as asked, which takes at least {at_least}: "
            "use fewer partitions or more data"
        )
    return labels


def checked_count(name: str, value: int, at_least: int = 1) -> int:
    """Return ``value`` if it is an integer of at least ``at_least``."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise CannotPartition(f"{name} is {value!r}: give an integer of at least {at_least}")
    return int(value)


def checked_seed(seed: int) -> int:
    """Return ``seed`` if numpy's generators accept it."""
    return checked_count("seed", seed, at_least=0)


def gathered(pieces: list[Indices]) -> Indices:
    """Join ``pieces`` into one partition, in ascending order, which hides how it was assembled."""
    return np.sort(np.concatenate(pieces)).astype(np.int64)
