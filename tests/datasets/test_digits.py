"""The digits: split, scaled and parted the same way in every process."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from flmq.common.errors import UsageError
from flmq.datasets.digits import client_shard, load_digits
from flmq.datasets.errors import CannotPartition, MissingExtra
from flmq.datasets.partitioner import LinearPartitioner


def test_split_is_80_to_20_stratified_scaled_and_read_only() -> None:
    digits = load_digits(5)
    assert digits.train_images.shape == (1437, 64)
    assert digits.test_images.shape == (360, 64)
    assert digits.train_images.dtype == np.float32
    assert digits.train_labels.dtype == np.int64
    assert digits.train_images.min() == 0
    assert digits.train_images.max() == 1
    share = np.bincount(digits.test_labels) / np.bincount(
        np.concatenate([digits.train_labels, digits.test_labels])
    )
    assert np.abs(share - 0.2).max() < 0.01
    with pytest.raises(ValueError, match="read-only"):
        digits.train_images[0, 0] = 1


def test_split_depends_on_the_seed_alone() -> None:
    first = load_digits(5)
    load_digits.cache_clear()
    assert np.array_equal(first.train_labels, load_digits(5).train_labels)
    assert not np.array_equal(first.train_labels, load_digits(6).train_labels)


def test_shards_of_all_clients_are_the_training_set() -> None:
    shards = [client_shard(10, "dirichlet", 1, index) for index in range(10)]
    assert sum(len(labels) for _, labels in shards) == 1437
    images = np.concatenate([images for images, _ in shards])
    assert images.dtype == np.float32
    assert images.sum() == load_digits(1).train_images.sum()


def test_a_partitioner_of_ones_own_is_taken_too() -> None:
    images, labels = client_shard(3, LinearPartitioner(3), 1, 2)
    assert len(images) == len(labels) == 1437 - 239 - 479


@pytest.mark.parametrize("index", [-1, 3])
def test_an_index_out_of_range_is_refused(index: int) -> None:
    with pytest.raises(CannotPartition, match=f"index {index} of 3 clients"):
        client_shard(3, "iid", 1, index)


def test_missing_scikit_learn_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    load_digits.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingExtra, match=r"pip install 'flmq\[demo\]'") as caught:
        load_digits(5)
    assert isinstance(caught.value, UsageError)
