"""Memory is that of the model, whatever the number of replies; sums hold what they promise."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from flmq.aggregation import MeanAccumulator, specs_of, weighted_mean
from flmq.aggregation.limbs import FULL, BlockSum
from tests.aggregation.numbers import any_bits, normal
from tests.aggregation.oracle import Array

SIZE = 1 << 17
REPLIES = 60


def blocks_of(total: MeanAccumulator) -> list[BlockSum]:
    return [block for blocks in total._blocks for block in blocks]


@pytest.fixture
def traced() -> Iterator[None]:
    tracemalloc.start()
    yield
    tracemalloc.stop()


def test_memory_does_not_grow_with_replies(traced: None) -> None:
    rng = np.random.default_rng(4)
    replies = [normal(rng, np.dtype("float32"), SIZE) for _ in range(4)]
    total = MeanAccumulator(specs_of(replies[:1]))
    total.add(replies[:1], 500)
    after_one, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    for number in range(REPLIES):
        total.add([replies[number % 4]], 500 + number)
    after_all, peak = tracemalloc.get_traced_memory()
    model = replies[0].nbytes
    assert after_all - after_one < 0.01 * model
    assert peak - after_one < 0.2 * model  # work on a block at a time


def test_the_sum_of_ordinary_float32_takes_twice_the_model(traced: None) -> None:
    rng = np.random.default_rng(5)
    reply = normal(rng, np.dtype("float32"), 1 << 20)
    before, _ = tracemalloc.get_traced_memory()
    total = MeanAccumulator(specs_of([reply]))
    for weight in (600, 900, 300):
        total.add([reply], weight)
    assert tracemalloc.get_traced_memory()[0] - before < 2.4 * reply.nbytes


def test_results_are_taken_one_at_a_time(traced: None) -> None:
    """A generator of many replies never has two of them alive."""
    model = 4 * SIZE

    def replies() -> Iterator[tuple[list[Array], int]]:
        for number in range(REPLIES):
            yield [np.full(SIZE, 0.5 + number, dtype=np.float32)], 10

    tracemalloc.reset_peak()
    weighted_mean(replies())
    assert tracemalloc.get_traced_memory()[1] < 9 * model


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_numbers_of_all_magnitudes_end_in_a_bounded_number_of_limbs(dtype: str) -> None:
    """One limb every 32 bits of the dtype's range, and a few: an adversary cannot have more."""
    rng = np.random.default_rng(6)
    total = MeanAccumulator(specs_of([np.zeros(2000, dtype)]))
    for number in range(80):
        exponent = int(rng.integers(-1000, 1000)) if dtype == "float64" else number * 3 - 120
        values = rng.standard_normal(2000) * 2.0**exponent
        if number % 3 == 0:
            values = any_bits(rng, np.dtype(dtype), 2000)
        total.add([values.astype(dtype)], int(rng.integers(1, 2**50)))
    for block in blocks_of(total):
        assert len(block.limbs) <= {"float32": 20, "float64": 80}[dtype]
        assert len(block.spill) <= block.size // 64


def test_loads_are_true_and_below_the_limit_however_much_is_added() -> None:
    rng = np.random.default_rng(7)
    total = MeanAccumulator(specs_of([np.zeros(3000, np.float32)]))
    for number in range(200):
        values = normal(rng, np.dtype("float32"), 3000) * np.float32(2.0 ** (number % 9))
        total.add([values], int(rng.integers(1, 2**26)))
    for block in blocks_of(total):
        assert len(block.limbs) > 1  # something was carried
        for limb in block.limbs.values():
            assert int(np.abs(limb.at()).max()) <= limb.load < FULL


def test_sums_that_are_doubled_again_and_again_stay_true() -> None:
    """A merge can bring as much as a limb holds."""
    rng = np.random.default_rng(8)
    replies = [normal(rng, np.dtype("float32"), 200) for _ in range(2)]
    total = MeanAccumulator(specs_of(replies[:1]))
    total.add(replies[:1], 600)
    total.add(replies[1:], 17)
    want = total.finish()[0].tobytes()
    for _ in range(70):
        total.merge(total)
        assert total.finish()[0].tobytes() == want
        for block in blocks_of(total):
            assert len(block.limbs) <= 5
            for limb in block.limbs.values():
                assert int(np.abs(limb.at()).max()) <= limb.load < FULL
    assert total.weight == 617 << 70
