"""The laws: the bits do not depend on order, on cuts, on the tree of sums, on storing half-way."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.aggregation import MeanAccumulator, specs_of, weighted_mean
from flmq.common.errors import InconsistentTensors
from tests.aggregation.numbers import MAKERS, counts, normal, outliers, scaled
from tests.aggregation.oracle import Array

Reply = tuple[list[Array], int]


def reply(rng: np.random.Generator, number: int) -> Reply:
    """A small model with tensors of many kinds, unlike the other replies in its magnitudes."""
    make = (normal, scaled, outliers, *MAKERS)[number % (3 + len(MAKERS))]
    tensors = [
        make(rng, np.dtype("float32"), 60).reshape(5, 12),
        make(rng, np.dtype("float64"), 21),
        make(rng, np.dtype("float16"), 20),
        make(rng, np.dtype("bfloat16"), 20),
        make(rng, np.dtype("float8_e4m3fn"), 20),
        mostly_minus_zero(rng, number),
        counts(rng, np.dtype("int64"), 3),
        np.array(number % 2 == 0),
        np.zeros((0, 4), dtype=np.float32),
    ]
    return tensors, int(rng.integers(1, 5000))


def mostly_minus_zero(rng: np.random.Generator, number: int) -> Array:
    """-0.0 in all replies at some places, and in all but a few at others."""
    values = np.full(12, -0.0, "float32")
    values[number] = rng.choice([0.0, 1.0])
    return values[:9]


@pytest.fixture(scope="module")
def replies() -> list[Reply]:
    rng = np.random.default_rng(2024)
    return [reply(rng, number) for number in range(12)]


def bits(tensors: list[Array]) -> bytes:
    return b"".join(t.tobytes() for t in tensors)


def sum_of(replies: list[Reply]) -> MeanAccumulator:
    total = MeanAccumulator(specs_of(replies[0][0]))
    for tensors, weight in replies:
        total.add(tensors, weight)
    return total


def test_a_thousand_orders_give_one_set_of_bits() -> None:
    rng = np.random.default_rng(11)
    replies: list[Reply] = [
        ([make(rng, np.dtype("float32"), 50)], int(rng.integers(1, 900))) for make in MAKERS
    ]
    rnd = random.Random(3)
    seen = {bits(weighted_mean(rnd.sample(replies, len(replies)))) for _ in range(1000)}
    assert len(seen) == 1


def test_any_tree_of_partial_sums_gives_the_same_bits(replies: list[Reply]) -> None:
    want = bits(weighted_mean(replies))
    rnd = random.Random(4)
    for _ in range(60):
        sums = [sum_of([r]) for r in replies]
        while len(sums) > 1:
            first, second = rnd.sample(range(len(sums)), 2)
            sums[first].merge(sums[second])
            del sums[second]
        assert bits(sums[0].finish()) == want


def test_regions_of_their_own_orders_and_an_empty_one(replies: list[Reply]) -> None:
    want = bits(weighted_mean(replies))
    regions = [sum_of(replies[8:]), sum_of(replies[3:8][::-1]), sum_of(replies[:3])]
    total = MeanAccumulator(specs_of(replies[0][0]))
    for region in regions:
        total.merge(region)
    total.merge(MeanAccumulator(total.specs))
    assert total.weight == sum(weight for _, weight in replies)
    assert bits(total.finish()) == want


def test_any_cut_into_blocks_gives_the_same_bits(replies: list[Reply]) -> None:
    want = bits(weighted_mean(replies))
    rnd = random.Random(5)
    for _ in range(20):
        total = MeanAccumulator(specs_of(replies[0][0]))
        pieces = [
            (index, offset, block, weight)
            for tensors, weight in replies
            for index, tensor in enumerate(tensors)
            for offset, block in cut(tensor.reshape(-1), rnd)
        ]
        rnd.shuffle(pieces)  # as from many clients at once
        for index, offset, block, weight in pieces:
            total.add_block(index, offset, block, weight)
        for _, weight in replies:
            total.add_weight(weight)
        assert bits(total.finish()) == want


def cut(flat: Array, rnd: random.Random) -> list[tuple[int, Array]]:
    borders = sorted({0, flat.size, *(rnd.randint(0, flat.size) for _ in range(3))})
    return [(a, flat[a:b]) for a, b in pairwise(borders)]


def test_blocks_across_the_borders_of_the_sums() -> None:
    """A tensor of several blocks of sums, in pieces that do not end where those end."""
    rng = np.random.default_rng(12)
    replies: list[Reply] = [
        ([normal(rng, np.dtype("float32"), 100_000)], w) for w in (3, 500, 7777)
    ]
    total = MeanAccumulator(specs_of(replies[0][0]))
    for tensors, weight in replies:
        for start in range(0, 100_000, 30_011):
            total.add_block(0, start, tensors[0][start : start + 30_011], weight)
        total.add_weight(weight)
    assert bits(total.finish()) == bits(weighted_mean(replies))


def test_taking_back_blocks_undoes_adding_them(replies: list[Reply]) -> None:
    want = bits(weighted_mean(replies[:5]))
    total = sum_of(replies[:3])
    broken_off, weight = replies[6]
    for index in (0, 1, 3, 5):
        total.add_block(index, 0, broken_off[index].reshape(-1), weight)
    for tensors, count in replies[3:5]:
        total.add(tensors, count)
    for index in (0, 1, 3, 5):
        total.take_back_block(index, 0, broken_off[index].reshape(-1), weight)
    assert bits(total.finish()) == want


def test_taking_back_a_reply_takes_back_what_its_zeros_said() -> None:
    total = MeanAccumulator(specs_of([np.zeros(2)]))
    total.add([np.array([-0.0, -0.0])], 3)
    for other in (np.array([0.0, -0.0]), np.array([-0.0, 5.0])):
        total.add_block(0, 0, other, 7)
        total.take_back_block(0, 0, other, 7)
    assert np.signbit(total.finish()[0]).all()


def test_storing_and_going_on_half_way(replies: list[Reply]) -> None:
    want = bits(weighted_mean(replies))
    for stop in range(len(replies)):
        total = sum_of(replies[: stop + 1])
        resumed = MeanAccumulator.from_bytes(total.to_bytes())
        assert resumed.weight == total.weight
        assert resumed.specs == total.specs
        for tensors, weight in replies[stop + 1 :]:
            resumed.add(tensors, weight)
        assert bits(resumed.finish()) == want


def test_finish_changes_nothing(replies: list[Reply]) -> None:
    total = sum_of(replies[:6])
    assert bits(total.finish()) == bits(total.finish()) == bits(weighted_mean(replies[:6]))
    for tensors, weight in replies[6:]:
        total.add(tensors, weight)
    assert bits(total.finish()) == bits(weighted_mean(replies))


def test_merging_leaves_the_other_as_it_was(replies: list[Reply]) -> None:
    first, second = sum_of(replies[:6]), sum_of(replies[6:])
    stored = second.to_bytes()
    first.merge(second)
    first.merge(second)
    assert second.to_bytes() == stored
    twice = [*replies, *replies[6:]]
    assert bits(first.finish()) == bits(weighted_mean(twice))


def test_merging_sums_of_other_tensors_is_refused() -> None:
    first = MeanAccumulator(specs_of([np.zeros(3, np.float32)]))
    with pytest.raises(InconsistentTensors, match=r"tensor 0 .*float32\[4\].*float32\[3\]"):
        first.merge(MeanAccumulator(specs_of([np.zeros(4, np.float32)])))
    with pytest.raises(InconsistentTensors, match="2 tensors"):
        first.merge(MeanAccumulator(specs_of([np.zeros(3, np.float32)] * 2)))


def test_inputs_are_not_changed(replies: list[Reply]) -> None:
    before = [bits(tensors) for tensors, _ in replies]
    weighted_mean(replies)
    assert [bits(tensors) for tensors, _ in replies] == before


@pytest.mark.parametrize(
    "layout",
    [
        np.asfortranarray,
        lambda t: np.repeat(t, 2, axis=1)[:, ::2],
        lambda t: t[::-1][::-1],
        lambda t: np.frombuffer(t.tobytes(), t.dtype).reshape(t.shape),
        lambda t: np.frombuffer(b"x" + t.tobytes(), t.dtype, offset=1).reshape(t.shape),
    ],
    ids=["Fortran order", "strided", "reversed view", "read-only", "unaligned"],
)
def test_memory_layout_does_not_matter(layout: Callable[[Array], Array]) -> None:
    rng = np.random.default_rng(13)
    tensors = [rng.standard_normal((40, 30)).astype(np.float32) for _ in range(3)]
    results: list[tuple[list[Array], int]] = [([layout(t)], 3 + i) for i, t in enumerate(tensors)]
    plain: list[tuple[list[Array], int]] = [([t], 3 + i) for i, t in enumerate(tensors)]
    assert bits(weighted_mean(results)) == bits(weighted_mean(plain))


@given(seed=st.integers(0, 2**32 - 1), data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_history_gives_the_same_bits(seed: int, data: st.DataObject) -> None:
    """Sums, some stored on the way, in any order and tree, with blocks that are taken back."""
    rng = np.random.default_rng(seed)
    replies: list[Reply] = [reply(rng, int(rng.integers(0, 11))) for _ in range(5)]
    want = bits(weighted_mean(replies))
    order: list[int] = data.draw(st.permutations(range(5)))
    cut_at = data.draw(st.integers(1, 4))
    parts = [sum_of([replies[i] for i in order[:cut_at]])]
    parts.append(sum_of([replies[i] for i in order[cut_at:]]))
    if data.draw(st.booleans()):
        parts.reverse()
    flat: Any = replies[order[0]][0][0].reshape(-1)
    if data.draw(st.booleans()):
        parts[0].add_block(0, 0, flat, 77)
        parts[0] = MeanAccumulator.from_bytes(parts[0].to_bytes())
        parts[0].take_back_block(0, 0, flat, 77)
    parts[0].merge(parts[1])
    assert bits(parts[0].finish()) == want
