"""Scikit-learn's handwritten digits, split once and partitioned among clients; offline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flmq.datasets.errors import CannotPartition, MissingExtra, check_installed
from flmq.datasets.partitioner import Partitioner, make_partitioner
from flmq.datasets.partitioner.base import checked_seed

__all__ = ["NUM_CLASSES", "NUM_FEATURES", "Digits", "check_data", "client_shard", "load_digits"]

_WHAT = "the digits data set"

NUM_FEATURES = 64
"""Pixels of an image, 8 x 8."""
NUM_CLASSES = 10

_TEST_SHARE = 0.2


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """1797 images in two parts. Images: float32 (n, 64) in [0, 1]; labels: int64 (n,), 0 to 9."""

    train_images: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_images: NDArray[np.float32]
    test_labels: NDArray[np.int64]


@lru_cache(maxsize=4)
def load_digits(seed: int = 42) -> Digits:
    """Return images and labels, 80 % for training and 20 % for testing; read-only.

    The split is stratified by class. The same ``seed`` gives the same split in every process.

    Raises:
        MissingExtra: scikit-learn is not installed.
    """
    images, labels = _from_scikit_learn()
    train, test = _split(labels, checked_seed(seed))
    parts = (images[train], labels[train], images[test], labels[test])
    for part in parts:
        # The cache shares them among all callers.
        part.setflags(write=False)
    return Digits(*parts)


def client_shard(
    num_clients: int, partition: str | Partitioner, seed: int, index: int, alpha: float = 0.5
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the training images and labels of client ``index`` of ``num_clients``.

    ``partition`` is a partitioner or a name that ``make_partitioner`` accepts, with ``alpha`` for
    "dirichlet"; ``seed`` decides the split and the partition.

    Raises:
        CannotPartition: index out of range, unknown partition, or too many clients.
    """
    digits = load_digits(seed)
    if isinstance(partition, str):
        partition = make_partitioner(partition, num_clients, alpha, seed)
    parts = partition.partition(digits.train_labels)
    if len(parts) != num_clients or not 0 <= index < num_clients:
        raise CannotPartition(
            f"client index {index} of {num_clients} clients over {len(parts)} partitions: give "
            "one partition a client, and an index from 0 to one below their number"
        )
    mine = parts[index]
    return digits.train_images[mine], digits.train_labels[mine]


def check_data() -> None:
    """Raise ``MissingExtra`` if `load_digits` would."""
    check_installed(_WHAT, "scikit-learn", "sklearn")


def _from_scikit_learn() -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    try:
        from sklearn import datasets
    except ImportError as error:
        raise MissingExtra(_WHAT, "scikit-learn") from error
    bunch: Any = datasets.load_digits()
    # Pixels are integers from 0 to 16: dividing by 16 is exact.
    return (bunch.data / 16).astype(np.float32), bunch.target.astype(np.int64)


def _split(labels: NDArray[np.int64], seed: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the positions for training and testing, both ascending, stratified by class."""
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(
        np.arange(labels.size), test_size=_TEST_SHARE, stratify=labels, random_state=seed
    )
    return np.sort(train), np.sort(test)
