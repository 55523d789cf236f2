"""The mean of losses and metrics: exact, rounded once, nothing for nothing."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.aggregation import weighted_mean_of_scalars
from flmq.common.errors import AggregationError, NonFiniteValues

finite = st.floats(allow_nan=False, allow_infinity=False)


def test_nothing_gives_none() -> None:
    assert weighted_mean_of_scalars([]) is None
    assert weighted_mean_of_scalars([(0, 1.5), (0, 2.5)]) is None


def test_on_paper() -> None:
    assert weighted_mean_of_scalars([(1, 1.0), (3, 2.0)]) == 1.75
    assert weighted_mean_of_scalars([(1, 0.1)] * 10) == 0.1
    assert weighted_mean_of_scalars([(1, 1e308), (1, 1.7e308)]) == 1.35e308
    assert weighted_mean_of_scalars([(1, 1e300), (1, 1.0), (1, -1e300)]) == 1 / 3
    assert weighted_mean_of_scalars([(2, 3), (2, True)]) == 2.0  # ints and bools are numbers


@given(st.lists(st.tuples(st.integers(0, 10**6), finite), min_size=1), st.randoms())
def test_the_nearest_float_in_any_order(pairs: list[tuple[int, float]], rnd: random.Random) -> None:
    total = sum(weight for weight, _ in pairs)
    mean = weighted_mean_of_scalars(pairs)
    rnd.shuffle(pairs)
    assert repr(weighted_mean_of_scalars(pairs)) == repr(mean)
    if total:
        exact = sum(weight * Fraction(value) for weight, value in pairs) / total
        assert mean == float(exact)  # Fraction to float is correctly rounded


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_nan_and_infinity_are_refused(value: float) -> None:
    with pytest.raises(NonFiniteValues, match="value 1 of the scalars"):
        weighted_mean_of_scalars([(1, 2.0), (0, value)])


def test_a_weight_that_is_none_is_refused() -> None:
    with pytest.raises(AggregationError, match="zero or more, not -1"):
        weighted_mean_of_scalars([(-1, 2.0)])


def test_a_negative_zero_mean_is_zero() -> None:
    assert repr(weighted_mean_of_scalars([(1, -0.0)])) == "0.0"
    assert repr(weighted_mean_of_scalars([(1, -5e-324), (3, 0.0)])) == "0.0"
