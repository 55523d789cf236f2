"""The one interface of all partitioners, and the checks that they share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.datasets.errors import CannotPartition

__all__ = ["Indices", "Labels", "Partitioner"]

Labels = NDArray[Any]
"""Shape (n,): one label or id a sample, of any dtype that can be sorted."""
Indices = NDArray[np.int64]
"""Shape (k,), ascending: the samples of one partition, as positions in the labels."""


class Partitioner(ABC):
    """Parts samples 0..n-1 among partitions: disjoint, covering all, none empty.

    A function of the constructor's arguments and the labels alone: the same seed gives the same
    parts in every process, so that each client can compute its own.
    """

    @abstractmethod
    def partition(self, labels: Labels) -> list[Indices]:
        """All partitions of the samples with these ``labels`` (shape (n,)), by partition number.

        Raises ``CannotPartition`` where the labels cannot be parted as asked.
        """


def checked_labels(labels: Labels, at_least: int) -> Labels:
    """``labels`` as an array of one dimension, if there are ``at_least`` so many."""
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
    """``value`` if it is an integer of ``at_least`` so much."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise CannotPartition(f"{name} is {value!r}: give an integer of at least {at_least}")
    return int(value)


def checked_seed(seed: int) -> int:
    """``seed`` if numpy's generators take it."""
    return checked_count("seed", seed, at_least=0)


def gathered(pieces: list[Indices]) -> Indices:
    """One partition from its ``pieces``, ascending: its order says nothing of how it grew."""
    return np.sort(np.concatenate(pieces)).astype(np.int64)
