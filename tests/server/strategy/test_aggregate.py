"""Means of arrays, losses and metrics: closed forms, and the same bits in every order."""

from __future__ import annotations

import importlib
import inspect
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.common.errors import AggregationError, InconsistentTensors, NonFiniteValues, ZeroWeight
from flmq.common.typing import Metrics, NDArrays
from flmq.server.strategy.aggregate import (
    aggregate,
    aggregate_inplace,
    aggregate_qffl,
    weighted_loss_avg,
    weighted_metrics_avg,
)
from tests.server.strategy.oracle import Reply, assert_close, flower, our_results

counts = st.integers(1, 2**40)
finite = st.floats(allow_nan=False, allow_infinity=False)


def test_the_mean_of_arrays_agrees_with_flowers() -> None:
    """Recorded from flwr 1.41's ``aggregate`` on the same arrays."""
    rng = np.random.default_rng(7)
    results = [([rng.normal(size=(2, 2)), rng.normal(size=3)], n) for n in (3, 10, 7)]
    first, second = aggregate(results)
    np.testing.assert_allclose(
        first,
        [[0.6600540079187435, 0.042064689411006426], [-0.8218332197640816, -0.04883326708506841]],
        rtol=1e-12,
    )
    np.testing.assert_allclose(
        second, [-0.5551850726260235, -0.5473780676752618, -1.1008197451915929], rtol=1e-12
    )


def test_the_mean_loss_agrees_with_flowers_and_with_paper() -> None:
    """(3 * 0.25 + 10 * 1.5 + 7 * 0.1) / 20 = 0.8225; flwr 1.41 gives the same."""
    assert weighted_loss_avg([(3, 0.25), (10, 1.5), (7, 0.1)]) == 0.8225


@given(st.lists(st.tuples(counts, finite), min_size=1, max_size=8))
def test_the_mean_loss_is_the_nearest_float_to_the_exact_one_in_every_order(
    pairs: list[tuple[int, float]],
) -> None:
    exact = sum(n * Fraction(loss) for n, loss in pairs) / sum(n for n, _ in pairs)
    for order in (pairs, pairs[::-1], sorted(pairs)):
        assert weighted_loss_avg(order) == float(exact)


def test_losses_without_a_mean_are_typed_errors() -> None:
    with pytest.raises(ZeroWeight):
        weighted_loss_avg([])
    with pytest.raises(ZeroWeight):
        weighted_loss_avg([(0, 1.0), (0, 2.0)])
    with pytest.raises(NonFiniteValues):
        weighted_loss_avg([(1, math.nan)])


def test_each_numeric_metric_is_averaged_over_those_that_have_it() -> None:
    results: list[tuple[int, Metrics]] = [
        (1, {"accuracy": 0.5, "steps": 10}),
        (3, {"accuracy": 0.9, "steps": 20}),
        (4, {"steps": 40, "f1": 0.25}),
    ]
    assert weighted_metrics_avg(results) == {
        "accuracy": 0.8,
        "f1": 0.25,
        "steps": (10 + 60 + 160) / 8,
    }


def test_what_has_no_mean_is_left_out() -> None:
    results: list[tuple[int, Metrics]] = [
        (1, {"gpu": True, "host": "a", "digest": b"x", "mixed": "n/a", "n": 1}),
        (1, {"gpu": False, "host": "b", "digest": b"y", "mixed": 3.0, "n": 2}),
    ]
    assert weighted_metrics_avg(results) == {"mixed": 3.0, "n": 1.5}
    assert weighted_metrics_avg([]) == {}
    assert weighted_metrics_avg([(0, {"n": 1.0})]) == {}


@pytest.mark.parametrize(
    ("values", "mean"),
    [
        ((1.0, math.nan), math.nan),
        ((math.inf, 1.0), math.inf),
        ((-math.inf, 1.0), -math.inf),
        ((math.inf, -math.inf), math.nan),
    ],
)
def test_a_metric_that_is_not_finite_stays_visible_in_every_order(
    values: tuple[float, float], mean: float
) -> None:
    for first, second in (values, values[::-1]):
        got = weighted_metrics_avg([(1, {"m": first}), (2, {"m": second})])
        assert repr(got) == repr({"m": mean})


def test_a_negative_weight_is_a_typed_error() -> None:
    with pytest.raises(AggregationError):
        weighted_metrics_avg([(-1, {"m": 1.0})])


@given(
    st.lists(
        st.tuples(counts, st.dictionaries(st.sampled_from("abc"), finite | st.booleans())),
        max_size=6,
    ).flatmap(lambda results: st.tuples(st.just(results), st.permutations(results)))
)
def test_metrics_do_not_depend_on_the_order_of_clients(
    orders: tuple[list[tuple[int, Metrics]], list[tuple[int, Metrics]]],
) -> None:
    first, second = (weighted_metrics_avg(results) for results in orders)
    assert repr(first) == repr(second)


def test_the_mean_of_replies_is_that_of_their_arrays() -> None:
    rng = np.random.default_rng(7)

    def arrays(n: int) -> NDArrays:
        return [rng.normal(size=(2, 2)).astype(np.float32), np.array(n)]

    replies: list[Reply] = [(arrays(n), n) for n in (3, 10, 7)]
    results = our_results(replies)
    made = aggregate_inplace(results)
    assert [x.dtype for x in made] == [np.float32, np.int64]
    expected = aggregate([(sent, n) for sent, n, *_ in replies])
    for shuffled in (made, aggregate_inplace(results[::-1])):
        assert [x.tobytes() for x in shuffled] == [x.tobytes() for x in expected]
    theirs = flower("flwr.server.strategy.aggregate").aggregate(
        [(sent[:1], n) for sent, n, *_ in replies]
    )
    assert_close(made[:1], theirs)


def test_a_q_fair_step_by_hand_and_as_flowers() -> None:
    """1 - (6 - 2) / (10 + 6) = 0.75."""
    one = [np.array([1.0]), np.array(1.0, np.float32)]
    deltas = [[6 * x for x in one], [-2 * x for x in one]]
    hs: list[Any] = [10.0, 6.0]
    made = aggregate_qffl(one, deltas, hs)
    assert [x.tolist() for x in made] == [[0.75], 0.75]
    assert [x.dtype for x in made] == [np.float64, np.float32]
    again = aggregate_qffl(one, deltas[::-1], hs[::-1])
    assert [x.tobytes() for x in again] == [x.tobytes() for x in made]
    theirs = flower("flwr.server.strategy.aggregate").aggregate_qffl(one, deltas, hs)
    assert_close(made, [np.asarray(x) for x in theirs])


def test_a_q_fair_step_that_is_none() -> None:
    one = [np.array([1.0])]
    with pytest.raises(ZeroWeight, match="no results"):
        aggregate_qffl(one, [], [])
    with pytest.raises(ZeroWeight, match="hs_fll add up to 0"):
        aggregate_qffl(one, [one], [np.array(0.0)])  # type: ignore[list-item]
    with pytest.raises(InconsistentTensors, match="shapes of the parameters"):
        aggregate_qffl([np.ones(2)], [one], [np.array(1.0)])  # type: ignore[list-item]


@pytest.mark.parametrize("name", ["aggregate", "aggregate_inplace", "aggregate_qffl"])
def test_helpers_take_flowers_arguments(name: str) -> None:
    theirs = getattr(flower("flwr.server.strategy.aggregate"), name)
    ours = getattr(importlib.import_module("flmq.server.strategy.aggregate"), name)
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)
