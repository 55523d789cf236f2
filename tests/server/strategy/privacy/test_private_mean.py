"""The mean of clipped updates with noise: its formula, its statistics, its bits."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from flmq.common import NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import AggregationError, NonFiniteValues, ZeroWeight
from flmq.journal.state import decode_state, encode_state
from flmq.server.strategy import (
    DifferentialPrivacyServerSideFixedClipping,
    DPFedAvgFixed,
    FedAdam,
    FedAvg,
)
from flmq.server.strategy.privacy.clipped import RepliedTwice
from tests.server.strategy.oracle import Reply, assert_close, round_of_flowers
from tests.server.strategy.oracle import flower as flowers
from tests.server.strategy.privacy.wrapped import FIXED, after, noise_of, private, replies, res

FALSE_ALARM = 1e-6
"""Of each statistical test here. Seeds are fixed, so that each passes always or never."""


def test_the_mean_of_three_numbers() -> None:
    """Updates 3, 1 and 0 of the model 10, clipped to 2: 2, 1, 0. Of 4 that were sampled: 3 / 4.

    Numbers of examples (1, 10, 100) are no weights.
    """
    sent = replies(np.array([13.0]), np.array([11.0]), np.array([10.0]))
    made, _ = after(private(norm=2.0), [np.array([10.0])], sent)
    assert made[0].tolist() == [10.75]


def test_more_replies_than_were_to_be_sampled_are_divided_by_their_number() -> None:
    sent = replies(*[np.array([1.0])] * 8)
    made, _ = after(private(norm=9.0), [np.array([0.0])], sent)
    assert made[0].tolist() == [1.0]


@pytest.mark.parametrize("inner", [FedAvg, FedAdam])
@pytest.mark.parametrize("kind", FIXED)
def test_without_noise_it_is_flowers(kind: Any, inner: Any) -> None:
    """Both around the same strategy; Flower weighs by examples, so these are the same for all."""
    rng = np.random.default_rng(1)
    model = [rng.normal(size=(3, 4)), rng.normal(size=5)]
    sent: list[Reply] = [([x + rng.normal(size=x.shape) for x in model], 1, {}) for _ in range(4)]
    common = flowers("flwr.common")
    theirs = flowers().DifferentialPrivacyServerSideFixedClipping(
        getattr(flowers(), inner.__name__)(initial_parameters=common.ndarrays_to_parameters(model)),
        0.0,
        1.5,
        4,
    )
    expected, _ = round_of_flowers(theirs, 1, model, sent)
    made, _ = after(private(kind, inner(), norm=1.5), model, sent)
    assert expected is not None
    assert_close(made, expected)


@pytest.mark.parametrize("clients", [3, 4, 6])
@pytest.mark.parametrize("kind", FIXED)
def test_noise_is_normal_and_as_large_as_it_says(kind: Any, clients: int) -> None:
    """N(0, (z C / n)^2) with n fixed; only more replies than n make it less.

    The sum of squares of N numbers over their variance is chi-squared with N degrees of freedom,
    and their mean normal; Kolmogorov and Smirnov's test looks at their shape.
    """
    size, stddev = 200_000, 1.3 * 2.0 / max(4, clients)
    noise = noise_of(private(kind, norm=2.0, noise_multiplier=1.3), size, clients=clients)
    low, high = stats.chi2(size).ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2])
    assert low < np.square(noise / stddev).sum() < high
    assert abs(noise.mean()) < stats.norm.isf(FALSE_ALARM / 2) * stddev / math.sqrt(size)
    assert stats.kstest(noise / stddev, "norm").pvalue > FALSE_ALARM


def test_where_clients_add_the_noise_the_server_adds_that_of_the_missing() -> None:
    """3 of 4 came: variance (z C)^2 / n of one client on the sum, (z C / n)^2 / 4 on the mean."""
    strategy = private(DPFedAvgFixed, norm=2.0, noise_multiplier=1.3, server_side_noising=False)
    size, stddev = 200_000, 1.3 * 2.0 / 4 / 2
    noise = noise_of(strategy, size, clients=3)
    low, high = stats.chi2(size).ppf([FALSE_ALARM / 2, 1 - FALSE_ALARM / 2])
    assert low < np.square(noise / stddev).sum() < high
    assert not noise_of(strategy, 5, clients=4).any()
    made, _ = after(strategy, [np.zeros(1)], replies(*[np.array([100.0])] * 4))
    assert made[0].tolist() == [100.0], "what clients have noised is not clipped again"


def test_other_rounds_replies_and_seeds_have_other_noise() -> None:
    def strategy(**options: Any) -> Any:
        return private(noise_multiplier=1.0, **options)

    size = 50_000
    first = noise_of(strategy(), size)
    assert first.tobytes() == noise_of(strategy(), size).tobytes()
    zeros, moved = np.zeros(size), np.eye(1, size)[0] * 1e-9
    other_replies, _ = after(strategy(), [zeros], replies(zeros, zeros, zeros, moved))
    others = [
        noise_of(strategy(), size, server_round=2),
        noise_of(strategy(noise_seed=8), size),
        noise_of(strategy(noise_seed=None), size),
        other_replies[0],
    ]
    bound = stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(size)
    for other in others:
        assert abs(np.corrcoef(first, other)[0, 1]) < bound


def test_tensors_have_noise_of_their_own() -> None:
    zeros = [np.zeros(50_000), np.zeros(50_000)]
    made, _ = after(private(noise_multiplier=1.0), zeros, [(zeros, 1)] * 4)
    bound = stats.norm.isf(FALSE_ALARM / 2) / math.sqrt(50_000)
    assert abs(np.corrcoef(made[0], made[1])[0, 1]) < bound


def test_counters_stay_and_small_floats_stay_finite() -> None:
    model: NDArrays = [np.array(5), np.array([True]), np.array([6e4], np.float16)]
    trained: NDArrays = [np.array(900), np.array([False]), np.array([6.5e4], np.float16)]
    made, _ = after(private(noise_multiplier=1e9), model, [(trained, 1)] * 4)
    assert made[0] == 5
    assert made[1].tolist() == [True]
    assert np.isfinite(made[2]).all()
    assert [x.dtype for x in made] == [x.dtype for x in model]


def test_one_client_moves_the_sum_by_no_more_than_the_norm() -> None:
    """Whatever it sends: the largest numbers there are, in as many tensors as there are."""
    model: NDArrays = [np.zeros(3, np.float32), np.zeros(2)]
    quiet: list[Reply] = [(model, 1)] * 3
    for value in (1.0, 1e30, 3e38):
        loud = [np.full(3, value, np.float32), np.full(2, -value)]
        made, _ = after(private(norm=2.0, num_sampled_clients=1), model, [*quiet, (loud, 10**9)])
        moved = math.sqrt(sum(np.square(x.astype(np.float64)).sum() for x in made))
        assert moved == pytest.approx(2.0 / 4, rel=1e-6)


def combine_of(model: list[Any], **options: Any) -> Any:
    return private(**options).combine(1, ndarrays_to_parameters(model))


def test_merging_is_adding() -> None:
    model = [np.zeros(4)]
    sent = {f"c{number}": res(np.full(4, number / 3)) for number in range(6)}
    whole, left, right = (combine_of(model, noise_multiplier=1.0) for _ in range(3))
    for number, (client_id, one) in enumerate(sent.items()):
        whole.add(client_id, one)
        (left if number % 2 else right).add(client_id, one)
    left.merge(right)
    expected, got = whole.finish(), left.finish()
    assert [x.tobytes() for x in got] == [x.tobytes() for x in expected]
    assert [x.tobytes() for x in got] == [x.tobytes() for x in expected], "again"
    assert (got.num_replies, got.num_examples) == (6, 6)


def test_a_client_counts_once_in_a_round() -> None:
    combine, other = combine_of([np.zeros(1)]), combine_of([np.zeros(1)])
    combine.add("a", res(np.ones(1)))
    other.add("a", res(np.ones(1)))
    with pytest.raises(RepliedTwice, match="a has two replies in this round"):
        combine.add("a", res(np.ones(1)))
    with pytest.raises(RepliedTwice):
        combine.merge(other)
    assert combine.finish().ndarrays()[0].tolist() == [0.25]


def test_what_cannot_be_clipped_is_named() -> None:
    combine = combine_of([np.zeros(1)])
    with pytest.raises(ZeroWeight):
        combine.finish()
    with pytest.raises(NonFiniteValues, match="the reply of a: there is NaN or infinity"):
        combine.add("a", res(np.array([np.nan])))
    with pytest.raises(AggregationError, match="the reply of b: 2 tensors"):
        combine.add("b", res(np.zeros(1), np.zeros(1)))
    combine.add("c", res(np.ones(1)))
    assert combine.finish().num_replies == 1


@pytest.mark.parametrize("noise_seed", [None, 5])
def test_a_resumed_run_has_the_same_noise(noise_seed: int | None) -> None:
    """Without a seed the secret is made once, and saved with the state."""

    def begun() -> Any:
        return private(noise_multiplier=1.0, noise_seed=noise_seed)

    straight, model = begun(), [np.zeros(10)]
    saved = encode_state(straight.state_dict())
    for server_round in (1, 2, 3):
        resumed = begun()
        resumed.load_state_dict(decode_state(saved))
        sent = replies(*(model[0] + number for number in range(4)))
        expected, metrics = after(straight, model, sent, server_round)
        got, same_metrics = after(resumed, model, sent, server_round)
        assert got[0].tobytes() == expected[0].tobytes()
        assert same_metrics == metrics
        saved, model = encode_state(resumed.state_dict()), got


def test_a_round_done_again_with_other_replies_does_not_show_their_difference() -> None:
    """A run put back from an earlier copy may do a round again: with the same noise in both models,
    their difference would be that of the clients."""
    strategy: Any = private(DifferentialPrivacyServerSideFixedClipping, noise_multiplier=1.0)
    state, zeros = strategy.state_dict(), np.zeros(1000)
    once, _ = after(strategy, [zeros], replies(*[zeros] * 4))
    strategy.load_state_dict(state)
    other, _ = after(strategy, [zeros], replies(zeros, zeros, zeros, zeros + 1e-6))
    assert np.abs(once[0] - other[0]).std() > 0.1


def test_the_model_is_not_changed_in_place() -> None:
    model = ndarrays_to_parameters([np.ones(3)])
    combine = private(noise_multiplier=1.0).combine(1, model)
    combine.add("a", res(np.zeros(3)))
    combine.finish().ndarrays()
    assert parameters_to_ndarrays(model)[0].tolist() == [1.0, 1.0, 1.0]
