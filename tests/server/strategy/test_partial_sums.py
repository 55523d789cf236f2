"""Sums of some replies as bytes: every tree of regions ends in the flat run's bits."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.common import FitRes, Parameters
from flmq.common.errors import StoredDataError
from flmq.server.strategy.combine import WeightedMean
from tests.server.strategy.test_combine import Results, results

Tree = list[Any]
"""Replies, and trees below: what one region has."""


def as_sent(mean: WeightedMean) -> WeightedMean:
    """The same after its way as bytes."""
    data, replies = b"".join(mean.to_pieces()), mean.replies
    examples = mean.examples
    return WeightedMean.restored(data, replies=replies, examples=examples)


def summed(tree: Tree) -> WeightedMean:
    """What the aggregator of a region sends on."""
    mean = WeightedMean()
    for each in tree:
        if isinstance(each, list):
            mean.merge(summed(each))
        else:
            mean.add(*each)
    return as_sent(mean)


def flat(pairs: Results) -> Parameters:
    mean = WeightedMean()
    for client_id, res in pairs:
        mean.add(client_id, res)
    return mean.finish().parameters()


@st.composite
def trees(draw: st.DrawFn, pairs: list[tuple[str, FitRes]], depth: int = 4) -> Tree:
    """Any assignment of the replies to regions of any depth, some of them empty."""
    pairs = draw(st.permutations(pairs))
    if depth == 0:
        return list(pairs)
    cuts = sorted(draw(st.lists(st.integers(0, len(pairs)), max_size=3)))
    bounds = [0, *cuts, len(pairs)]
    parts = [pairs[a:b] for a, b in itertools.pairwise(bounds)]
    regions = [draw(trees(part, depth - 1)) for part in parts[1:]]
    return [*parts[0], *regions]


@given(st.data())
@settings(max_examples=40, deadline=None)
def test_every_tree_of_regions_has_the_bits_of_the_flat_run(data: st.DataObject) -> None:
    pairs = results(7)
    tree = data.draw(trees(pairs))
    mean = summed(tree)
    assert (mean.replies, mean.examples) == (7, sum(res.num_examples for _, res in pairs))
    assert mean.finish().parameters() == flat(pairs)


def test_of_nothing_is_of_no_bytes() -> None:
    empty = as_sent(WeightedMean())
    assert (empty.replies, empty.examples, empty.specs) == (0, 0, None)
    assert b"".join(empty.to_pieces()) == b""


@pytest.mark.parametrize(("replies", "examples"), [(4, 9), (4, 11), (0, 10), (4, 0)])
def test_whose_counts_do_not_fit_is_refused(replies: int, examples: int) -> None:
    mean = summed(list(results()))
    data = b"".join(mean.to_pieces())
    assert mean.examples == 10
    with pytest.raises(StoredDataError, match="stored sum of weight 10"):
        WeightedMean.restored(data, replies=replies, examples=examples)
    with pytest.raises(StoredDataError, match="weight 0"):
        WeightedMean.restored(b"", replies=replies or 1, examples=examples)


def test_that_is_damaged_is_refused() -> None:
    data = bytearray(b"".join(summed(list(results())).to_pieces()))
    rng = random.Random(3)
    for _ in range(50):
        at = rng.randrange(len(data))
        spoiled = data.copy()
        spoiled[at] ^= 1 << rng.randrange(8)
        with pytest.raises(StoredDataError):
            WeightedMean.restored(spoiled, replies=4, examples=10)
