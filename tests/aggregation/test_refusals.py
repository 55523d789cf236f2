"""What has no mean is refused with the reason, and leaves the sum as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flmq.aggregation import MeanAccumulator, TensorSpec, specs_of, weighted_mean
from flmq.common.errors import (
    AggregationError,
    InconsistentTensors,
    NonFiniteValues,
    ZeroWeight,
)
from tests.aggregation.numbers import FLOATS, any_bits
from tests.aggregation.oracle import Array

ONES = np.ones((2, 3), dtype=np.float32)


def test_nothing_to_average() -> None:
    with pytest.raises(ZeroWeight, match="no results"):
        weighted_mean([])
    with pytest.raises(ZeroWeight, match="total weight is zero"):
        weighted_mean([([ONES], 0), ([ONES], 0)])
    with pytest.raises(ZeroWeight, match="total weight is zero"):
        MeanAccumulator(specs_of([ONES])).finish()


def test_a_model_without_tensors_has_a_mean() -> None:
    assert weighted_mean([([], 3), ([], 4)]) == []


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ([ONES], r"result 1: 1 tensors where 2 are expected"),
        ([ONES, ONES, ONES], r"result 1: 3 tensors where 2 are expected"),
        ([ONES, ONES[:1]], r"result 1: tensor 1 is float32\[1, 3\] where float32\[2, 3\] is"),
        ([ONES.reshape(3, 2), ONES], r"result 1: tensor 0 is float32\[3, 2\] where"),
        ([ONES, ONES.astype(np.float64)], r"result 1: tensor 1 is float64\[2, 3\] where"),
        ([ONES, ONES.astype("bfloat16")], r"result 1: tensor 1 is bfloat16\[2, 3\] where"),
    ],
)
def test_tensors_that_differ(tensors: list[Array], message: str) -> None:
    with pytest.raises(InconsistentTensors, match=message):
        weighted_mean([([ONES, ONES], 5), (tensors, 5)])


@pytest.mark.parametrize(
    "dtype", ["complex64", "longdouble", "object", "U3", "M8[s]", "V2", "int4", "float8_e8m0fnu"]
)
def test_dtypes_without_a_mean(dtype: str) -> None:
    tensor = np.zeros(3, dtype=dtype)
    with pytest.raises(InconsistentTensors, match=r"tensor 1: dtype .* has no mean"):
        weighted_mean([([ONES, tensor], 1)])


@pytest.mark.parametrize("weight", [-1, 1.0, 1.5, "3", None, np.float32(2)])
def test_weights_that_are_none(weight: Any) -> None:
    with pytest.raises(AggregationError, match="a weight must be"):
        weighted_mean([([ONES], weight)])


def test_integers_of_any_type_weigh() -> None:
    results: list[Any] = [([ONES], np.int32(3)), ([ONES * 2], np.uint8(1)), ([ONES], True)]
    (mean,) = weighted_mean(results)
    assert mean.tolist() == (ONES * np.float32(1.2)).tolist()


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("weight", [0, 7])
def test_nan_and_infinity_are_refused(dtype: str, bad: float, weight: int) -> None:
    tensor = np.zeros(100, dtype=dtype)
    tensor[63] = bad  # NaN where a dtype has no infinity
    good = np.zeros(100, dtype=dtype)
    with pytest.raises(NonFiniteValues, match="result 1: tensor 0 has NaN or infinity"):
        weighted_mean([([good], 1), ([tensor], weight)])


def test_a_refused_reply_changes_nothing_however_late_the_fault() -> None:
    """The fault is in the last block of the last tensor, when most has been added."""
    rng = np.random.default_rng(1)
    tensors: list[Array] = [
        any_bits(rng, np.dtype("float64"), 300),
        np.arange(5),
        rng.standard_normal(70_000).astype(np.float32),
    ]
    broken = [t * 3 for t in tensors[1:]]
    broken[-1][-1] = np.nan
    total = MeanAccumulator(specs_of(tensors))
    total.add(tensors, 12)
    want = [t.tobytes() for t in total.finish()]
    with pytest.raises(NonFiniteValues, match="tensor 2 has NaN or infinity"):
        total.add([tensors[0], *broken], 2**40 + 1)
    with pytest.raises(NonFiniteValues, match="tensor 2"):
        total.add_block(2, 5, broken[-1][5:], 9)
    with pytest.raises(InconsistentTensors):
        total.add(tensors[:2], 5)
    with pytest.raises(AggregationError):
        total.add(tensors, -5)
    assert total.weight == 12
    assert [t.tobytes() for t in total.finish()] == want
    total.add(tensors, 12)
    assert [t.tobytes() for t in total.finish()] == want  # the mean of a model and itself


@pytest.mark.parametrize(
    ("index", "offset", "values", "message"),
    [
        (1, 0, np.zeros(2, np.float32), "no tensor 1 of 1"),
        (-1, 0, np.zeros(2, np.float32), "no tensor -1 of 1"),
        (0, 5, np.zeros(2, np.float32), "elements 5 to 7 do not lie in tensor 0"),
        (0, -1, np.zeros(2, np.float32), "elements -1 to 1 do not lie in tensor 0"),
        (0, 0, np.zeros(2, np.float64), r"a 1-d block of tensor 0, float32\[2, 3\], cannot be"),
        (0, 0, ONES, r"cannot be float32\[2, 3\]"),
    ],
)
def test_blocks_that_do_not_fit(index: int, offset: int, values: Array, message: str) -> None:
    total = MeanAccumulator([TensorSpec((2, 3), np.dtype(np.float32))])
    with pytest.raises(InconsistentTensors, match=message):
        total.add_block(index, offset, values, 3)


def test_floating_point_traps_of_the_caller_do_not_fire() -> None:
    rng = np.random.default_rng(2)
    tensors = [any_bits(rng, np.dtype(t), 400) for t in ("float16", "float32", "float64")]
    with np.errstate(all="raise"):
        weighted_mean([(tensors, 3), ([t[::-1] for t in tensors], 2**55)])
