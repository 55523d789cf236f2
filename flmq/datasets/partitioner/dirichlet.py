"""Label skew of any degree: each class is distributed by a draw from a Dirichlet distribution."""

from __future__ import annotations

import math

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

__all__ = ["DirichletPartitioner"]

_TRIES = 1000
"""Draws before giving up. At 1 ms a draw this is a second; success after that is too
unlikely to wait for."""


class DirichletPartitioner(Partitioner):
    """Per class, p ~ Dir(alpha, ..., alpha), cut at floor(cumsum(p) n_class) (arXiv:1905.12022).

    Small ``alpha`` gives partitions of few classes, large ``alpha`` near-equal mixtures. All is
    redrawn while a partition has fewer than ``min_partition_size`` samples.
    """

    def __init__(
        self,
        num_partitions: int,
        alpha: float,
        min_partition_size: int = 10,
        self_balancing: bool = False,
        seed: int = 42,
    ) -> None:
        """Create ``num_partitions`` with concentration ``alpha`` > 0.

        ``self_balancing``: a partition that already has 1/n of all samples gets none of the
        following classes.
        """
        self.num_partitions = checked_count("num_partitions", num_partitions)
        if not (math.isfinite(alpha) and alpha > 0):
            raise CannotPartition(f"alpha is {alpha!r}: give a finite number above 0, such as 0.5")
        self.alpha = float(alpha)
        # An empty partition is a client that cannot train: at least one sample.
        self.min_partition_size = checked_count("min_partition_size", min_partition_size)
        self.self_balancing = self_balancing
        self.seed = checked_seed(seed)

    def partition(self, labels: Labels) -> list[Indices]:
        """Return the partitions of ``labels`` (shape (n,))."""
        labels = checked_labels(labels, self.num_partitions * self.min_partition_size)
        classes = [np.flatnonzero(labels == label) for label in np.unique(labels)]
        rng = np.random.default_rng(self.seed)
        smallest = 0
        for _ in range(_TRIES):
            parts = self._draw(classes, labels.size, rng)
            size = min(part.size for part in parts)
            if size >= self.min_partition_size:
                return parts
            smallest = max(smallest, size)
        raise CannotPartition(
            f"in {_TRIES} draws of Dirichlet({self.alpha:g}) over {self.num_partitions} partitions "
            f"the smallest partition never had more than {smallest} samples, and "
            f"min_partition_size is {self.min_partition_size}: use a larger alpha, fewer "
            "partitions, a smaller min_partition_size, or self_balancing"
        )

    def _draw(
        self, classes: list[NDArray[np.intp]], total: int, rng: np.random.Generator
    ) -> list[Indices]:
        pieces: list[list[Indices]] = [[] for _ in range(self.num_partitions)]
        sizes = np.zeros(self.num_partitions, dtype=np.int64)
        for samples in classes:
            share = rng.dirichlet(np.full(self.num_partitions, self.alpha))
            if self.self_balancing:
                share = _only_open(share, sizes < total / self.num_partitions)
            # The last partition takes the rest: cumsum may end slightly below 1.
            cuts = np.floor(np.cumsum(share)[:-1] * samples.size).astype(np.int64)
            for number, piece in enumerate(np.split(rng.permutation(samples), cuts)):
                pieces[number].append(piece)
                sizes[number] += piece.size
        return [gathered(mine) for mine in pieces]


def _only_open(share: NDArray[np.float64], is_open: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return ``share`` restricted to the open partitions, summing to 1."""
    kept = np.where(is_open, share, 0.0)
    # With a tiny alpha the closed ones may have drawn everything; then the open share equally.
    if kept.sum() <= 0:
        kept = is_open.astype(np.float64)
    result: NDArray[np.float64] = kept / kept.sum()
    return result
