"""The mean is the number nearest to the true one: against rational arithmetic, for every dtype."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flmq.aggregation import MeanAccumulator, specs_of, weighted_mean
from tests.aggregation.numbers import (
    FLOATS,
    INTEGERS,
    MAKERS,
    NARROW,
    Maker,
    counts,
    info_of,
    normal,
    whole,
)
from tests.aggregation.oracle import Array, exact_mean

WEIGHTS = {
    "equal": [1, 1, 1, 1],
    "one": [1, 0, 0, 0],
    "samples": [600, 37, 1024, 511],
    "large": [2**53 - 1, 3, 2**31, 2**53],
    "larger than any integer type": [2**70 + 1, 2**64, 0, 5],
    "larger than any float": [2**1100 + 1, 2**1099, 0, 5],
}


def mean_of(tensors: list[Array], weights: list[int]) -> Array:
    (mean,) = weighted_mean([([t], w) for t, w in zip(tensors, weights, strict=True)])
    return mean


def assert_exact(tensors: list[Array], weights: list[int]) -> None:
    got, want = mean_of(tensors, weights), exact_mean(tensors, weights)
    assert (got.dtype, got.shape) == (want.dtype, want.shape)
    assert got.tobytes() == want.tobytes()


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("maker", MAKERS, ids=lambda m: str(m.__name__))
@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_rounded_once(dtype: str, maker: Maker, weights: list[int]) -> None:
    rng = np.random.default_rng(5)
    assert_exact([maker(rng, np.dtype(dtype), 130) for _ in weights], weights)


@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
@pytest.mark.parametrize("maker", [whole, counts], ids=lambda m: str(m.__name__))
@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_are_rounded_once(dtype: str, maker: Maker, weights: list[int]) -> None:
    rng = np.random.default_rng(6)
    assert_exact([maker(rng, np.dtype(dtype), 70) for _ in weights], weights)


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "bfloat16", "float8_e5m2"])
def test_replies_of_different_character_mix(dtype: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(2, 9))
    makers = [MAKERS[i] for i in rng.integers(0, len(MAKERS), count)]
    weights = [int(w) for w in rng.integers(0, 2 ** int(rng.integers(1, 40)), count)]
    assert_exact([make(rng, np.dtype(dtype), 100) for make in makers], [1 + w for w in weights])


def test_a_large_tensor_of_ordinary_numbers() -> None:
    """Long enough for several blocks, the last not full, and for numbers in the spill."""
    rng = np.random.default_rng(7)
    tensors = [normal(rng, np.dtype("float32"), 70_001) for _ in range(3)]
    assert_exact(tensors, [600, 601, 17])


def test_a_total_weight_of_billions_carries() -> None:
    rng = np.random.default_rng(8)
    tensors = [normal(rng, np.dtype("float32"), 3_000) for _ in range(6)]
    assert_exact(tensors, [2**24 - 1, 2**23, 2**24 - 5, 2**31, 2**22, 2**24 - 3])


@given(
    data=st.lists(
        st.tuples(
            arrays.arrays(
                np.float32,
                5,
                elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
            ),
            st.integers(0, 2**53),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=150, deadline=None)
def test_any_float32(data: list[tuple[Array, int]]) -> None:
    tensors, weights = [t for t, _ in data], [w for _, w in data]
    assert_exact(tensors, [weights[0] + 1, *weights[1:]])


@given(
    values=st.lists(
        st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=8
    ),
    weight=st.integers(1, 2**40),
)
@settings(max_examples=150, deadline=None)
def test_any_float64(values: list[float], weight: int) -> None:
    tensors: list[Array] = [np.array(v) for v in values]
    assert_exact(tensors, [weight + i for i in range(len(values))])


CASES: dict[str, tuple[list[Any], list[int], Any]] = {
    "a sum beyond float32": ([3e38, 3e38], [1, 1], np.float32(3e38)),
    "cancellation": ([1e38, 1.0, -1e38], [1, 1, 1], np.float32(1 / 3)),
    "the least number halved goes to even": ([1e-45, 0.0], [1, 1], np.float32(0)),
    "three halves of the least number": ([3e-45, 1e-45], [1, 1], np.float32(3e-45)),
    "a tie goes to even, down": ([1.0, 1.0 + 2**-23], [1, 1], np.float32(1.0)),
    "a tie goes to even, up": ([1 + 2**-23, 1 + 2**-22], [1, 1], np.float32(1 + 2**-22)),
    "a hair above a tie": (
        [1.0, 1.0 + 2**-23, 1 + 2**-23],
        [2**30, 2**30, 1],
        np.float32(1 + 2**-23),
    ),
}


@pytest.mark.parametrize(("values", "weights", "mean"), CASES.values(), ids=CASES)
def test_float32_on_paper(values: list[float], weights: list[int], mean: np.float32) -> None:
    got = mean_of([np.array(v, dtype=np.float32) for v in values], weights)
    assert got.tobytes() == mean.tobytes()


@pytest.mark.parametrize(("dtype", "unit"), [("float64", 2.0**-1074), ("float32", 2.0**-149)])
def test_subnormal_means_are_rounded_once_too(dtype: str, unit: float) -> None:
    """A half and a hair above an even number: rounded in two steps, the hair would be lost."""
    for even in (0, 2**20 - 2, 2**22, *([2**40] if dtype == "float64" else [])):
        low, high = (np.array(n * unit, dtype=dtype) for n in (even, even + 1))
        assert mean_of([low, high], [2**35 - 1, 2**35 + 1]) == high
        assert mean_of([low, high], [1, 1]) == low
        assert mean_of([low, high], [2**35 + 1, 2**35 - 1]) == low


def test_small_numbers_beside_large_ones_in_a_tensor_of_two_limbs() -> None:
    """The upper limb holds next to nothing of them, the lower one not many bits."""
    rng = np.random.default_rng(10)
    tensors: list[Array] = []
    for _ in range(3):
        values = rng.standard_normal(300)
        values[::3] = rng.standard_normal(100).astype(np.float32) * 2.0**-30
        values[1::3] = rng.integers(-3, 4, 100) * 2.0**-70
        tensors.append(values)
    weights = [600, 601, 17]
    assert_exact(tensors, weights)
    total = MeanAccumulator(specs_of(tensors[:1]))
    for tensor, weight in zip(tensors, weights, strict=True):
        total.add([tensor], weight)
    assert len(total._blocks[0][0].limbs) == 2


@pytest.mark.parametrize(
    ("values", "weights", "mean"),
    [
        ([1, 2], [1, 1], 2),
        ([2, 3], [1, 1], 2),
        ([-1, -2], [1, 1], -2),
        ([-2, -3], [1, 1], -2),
        ([2**63 - 1, 2**63 - 1], [1, 1], 2**63 - 1),
        ([2**63 - 1, 2**63 - 3], [1, 1], 2**63 - 2),
        ([-(2**63), -(2**63)], [5, 6], -(2**63)),
        ([-(2**63), 2**63 - 1], [1, 1], 0),
        ([2**53 + 1, 2**53 + 1], [3, 4], 2**53 + 1),
    ],
)
def test_int64_on_paper(values: list[int], weights: list[int], mean: int) -> None:
    assert mean_of([np.array(v, dtype=np.int64) for v in values], weights).item() == mean


def test_bools_vote_by_weight_and_a_tie_is_false() -> None:
    yes, no = np.array([True, True, False]), np.array([False, True, False])
    assert mean_of([yes, no], [2, 1]).tolist() == [True, True, False]
    assert mean_of([yes, no], [1, 1]).tolist() == [False, True, False]
    assert mean_of([yes, no], [1, 2]).tolist() == [False, True, False]


@pytest.mark.parametrize("dtype", FLOATS)
def test_one_reply_is_its_own_mean_bit_for_bit(dtype: str) -> None:
    values = MAKERS[0](np.random.default_rng(9), np.dtype(dtype), 500)
    assert (
        mean_of([values], [37]).tobytes() == values.astype(values.dtype.newbyteorder("=")).tobytes()
    )


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weights", WEIGHTS.values(), ids=WEIGHTS)
def test_zero_is_negative_where_every_number_with_a_weight_was(
    dtype: str, weights: list[int]
) -> None:
    minus, plus = np.full(3, -0.0, dtype), np.zeros(3, dtype)
    mixed = np.array([-0.0, 0.0, -0.0], dtype)
    one = np.array([-0.0, -0.0, 1.0], dtype)
    for tensors, signs in (
        ([minus, minus, minus, minus], [True, True, True]),
        ([minus, mixed, minus, minus], [True, weights[1] == 0, True]),
        ([mixed, one, minus, plus], [weights[3] == 0, False, not weights[1] + weights[3]]),
        ([plus, minus, minus, minus], [False, False, False]),
    ):
        mean = mean_of(tensors, weights)
        assert np.signbit(mean.astype(np.float64)).tolist() == signs
        assert_exact(tensors, weights)


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_negative_mean_that_rounds_to_zero_is_positive(dtype: str) -> None:
    least = np.full(3, -float(info_of(np.dtype(dtype)).smallest_subnormal), dtype)
    mean = mean_of([least, np.full(3, -0.0, dtype)], [1, 9]).astype(np.float64)
    assert mean.tolist() == [0, 0, 0]
    assert not np.signbit(mean).any()


def test_numbers_that_cancel_are_positive_zero() -> None:
    assert not np.signbit(mean_of([np.array([2.0]), np.array([-2.0])], [3, 3]))


def test_byte_orders_mix() -> None:
    rng = np.random.default_rng(14)
    tensors = [normal(rng, np.dtype("float32"), 50) for _ in range(3)]
    orders = [tensors[0].astype(">f4"), tensors[1], tensors[2].astype(">f4")]
    got, want = mean_of(orders, [3, 4, 5]), mean_of(tensors, [3, 4, 5])
    assert got.dtype == np.dtype("float32")
    assert got.tobytes() == want.tobytes()


CASES_BFLOAT16 = {
    # bfloat16 has eight significant bits: beside one, steps of 2**-7.
    "a tie goes to even, down": ([1.0, 1.0 + 2**-7], [1, 1], 1.0),
    "a tie goes to even, up": ([1 + 2**-7, 1 + 2**-6], [1, 1], 1 + 2**-6),
    "a hair above a tie": ([1.0, 1.0 + 2**-7, 1 + 2**-7], [2**30, 2**30, 1], 1 + 2**-7),
    "a hair above a tie, that float32 does not see": (
        [1.0, 1.0 + 2**-7, 1.0 + 2**-7],
        [2**40, 2**40, 1],
        1 + 2**-7,
    ),
    "a sum beyond bfloat16": ([3e38, 3e38], [1, 1], 3e38),
    "the least number halved goes to even": ([2.0**-133, 0.0], [1, 1], 0.0),
    "three halves of the least number": ([2.0**-132, 2.0**-133], [1, 1], 2.0**-132),
}


@pytest.mark.parametrize(("values", "weights", "mean"), CASES_BFLOAT16.values(), ids=CASES_BFLOAT16)
def test_bfloat16_on_paper(values: list[float], weights: list[int], mean: float) -> None:
    got = mean_of([np.array(v, "bfloat16") for v in values], weights)
    assert got.tobytes() == np.array(mean, "bfloat16").tobytes()


@given(
    bits=st.lists(st.integers(0, 2**16 - 1), min_size=1, max_size=8),
    weights=st.lists(st.integers(0, 2**53), min_size=8, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_any_bfloat16(bits: list[int], weights: list[int]) -> None:
    values = np.array(bits, np.uint16).view("bfloat16")
    with np.errstate(all="ignore"):  # bfloat16's own NaNs make numpy warn
        finite = np.isfinite(values)
    tensors: list[Array] = [np.array(v) for v in values[finite]]
    if tensors:
        assert_exact(tensors, [weights[0] + 1, *weights[1 : len(tensors)]])


@pytest.mark.parametrize("name", NARROW)
def test_every_number_of_a_narrow_float_with_every_other(name: str) -> None:
    """Half of the means of neighbours are ties, subnormal ones too."""
    dtype = np.dtype(name)
    bits = np.arange(256, dtype=f"u{dtype.itemsize}") << (8 * dtype.itemsize - 8)
    with np.errstate(all="ignore"):
        numbers = bits.view(dtype)
        numbers = numbers[np.isfinite(numbers)]
    rng = np.random.default_rng(15)
    others = [rng.permutation(numbers) for _ in range(2)]
    assert_exact([numbers, np.roll(numbers, 1), *others], [1, 1, 0, 0])
    assert_exact([numbers, *others], [600, 37, 1024])
