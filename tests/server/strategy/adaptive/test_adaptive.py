"""FedAvgM, FedAdagrad, FedAdam, FedYogi: formulas by hand, Flower's numbers, what they keep."""

from __future__ import annotations

from math import sqrt
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from flmq.common import NDArrays, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.errors import InconsistentTensors, ZeroWeight
from flmq.server.strategy import FedAdagrad, FedAdam, FedAvg, FedAvgM, FedOpt, FedYogi
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.strategy.oracle import Reply, our_results, round_of_ours, same_as_flower

FAMILY = [FedAvgM, FedAdagrad, FedAdam, FedYogi]


def moving(kind: Any) -> Any:
    """A strategy with options with which it has something to remember."""
    return kind(server_learning_rate=0.5, server_momentum=0.9) if kind is FedAvgM else kind()


def moments(strategy: Any) -> list[NDArrays]:
    """What it remembers: a list of arrays for each moment."""
    return [each for each in strategy.state_dict().values() if each]


def scalar_rounds(strategy: FedAvg, x: float, *means: float) -> list[float]:
    """The model after each round, of one number, of which clients send these means.

    Three clients with 1, 1 and 2 examples send mean - 1, mean + 1 and mean.
    """
    model, came_to = [np.array([x])], []
    for server_round, mean in enumerate(means, 1):
        replies: list[Reply] = [
            ([np.array([mean - 1])], 1),
            ([np.array([mean + 1])], 1),
            ([np.array([mean])], 2),
        ]
        made, _ = round_of_ours(strategy, server_round, model, replies)
        assert made is not None
        model = made
        came_to.append(float(model[0][0]))
    return came_to


def test_fedavgm_by_hand() -> None:
    """From 1, means 3, 3, 4, momentum 1/2, learning rate 1: v = 2, 1 + 0, 1/2 + 0."""
    strategy = FedAvgM(server_momentum=0.5)
    assert scalar_rounds(strategy, 1.0, 3.0, 3.0, 4.0) == [3.0, 4.0, 4.5]


def test_fedavgm_with_a_learning_rate_by_hand() -> None:
    """From 1, means 3 and 2, momentum 1/2, rate 1/4: v = 2, x = 1.5; v = 1 + 0.5, x = 1.875."""
    strategy = FedAvgM(server_momentum=0.5, server_learning_rate=0.25)
    assert scalar_rounds(strategy, 1.0, 3.0, 2.0) == [1.5, 1.875]


def test_fedadagrad_by_hand() -> None:
    """From 1, mean 3: v = 4, a step of 0.1 * 2 / 2. Then, 1.5 further: v = 4 + 2.25 = 2.5^2."""
    strategy = FedAdagrad(eta=0.1, tau=1e-12)
    got = scalar_rounds(strategy, 1.0, 3.0, 1.1 + 1.5)
    assert got == pytest.approx([1.1, 1.1 + 0.1 * 1.5 / 2.5], rel=1e-11)


def test_fedadam_of_the_paper_by_hand() -> None:
    """Algorithm 2 with v_{-1} = tau^2 = 0.01.

    From 1, mean 3: m = 0.1 * 2 = 0.2, v = 0.99 * 0.01 + 0.01 * 4 = 0.0499. Then mean = x, so that
    delta = 0: m = 0.18 and v = 0.049401.
    """
    strategy = FedAdam(eta=0.1, tau=0.1, bias_correction=False, initial_accumulator_value=0.01)
    first = 1 + 0.1 * 0.2 / (sqrt(0.0499) + 0.1)
    second = first + 0.1 * 0.18 / (sqrt(0.049401) + 0.1)
    assert scalar_rounds(strategy, 1.0, 3.0, first) == pytest.approx([first, second], rel=1e-12)


def test_fedadam_with_flowers_bias_correction_by_hand() -> None:
    """Round 1 has the exponent 2: eta_1 = 0.1 sqrt(1 - 0.99^2) / (1 - 0.9^2); m / sqrt(v) = 1."""
    strategy = FedAdam(eta=0.1, tau=1e-12)
    assert scalar_rounds(strategy, 1.0, 3.0) == pytest.approx([1 + 0.1 * sqrt(0.0199) / 0.19])


def test_fedyogi_by_hand() -> None:
    """From 1, mean 3: v = 0 + 0.01 * 4 * 1. Then delta 0.1: v = 0.04 - 0.01 * 0.01 (sign 1)."""
    strategy = FedYogi(eta=0.1, tau=0.1)
    first = 1 + 0.1 * 0.2 / (0.2 + 0.1)
    second = first + 0.1 * (0.9 * 0.2 + 0.1 * 0.1) / (sqrt(0.0399) + 0.1)
    got = scalar_rounds(strategy, 1.0, 3.0, first + 0.1)
    assert got == pytest.approx([first, second], rel=1e-12)


def arrays(rng: np.random.Generator, dtype: Any) -> NDArrays:
    return [rng.normal(size=(40, 30)).astype(dtype), np.asarray(rng.normal(size=7), dtype)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (FedAvgM, {}),
        (FedAvgM, {"server_learning_rate": 0.7}),
        (FedAvgM, {"server_momentum": 0.9}),
        (FedAvgM, {"server_learning_rate": 0.7, "server_momentum": 0.5}),
        (FedOpt, {"beta_1": 0.5, "beta_2": 0.5}),
        (FedAdagrad, {}),
        (FedAdagrad, {"eta": 0.03, "tau": 1e-3}),
        (FedAdam, {}),
        (FedAdam, {"eta": 0.01, "beta_1": 0.8, "beta_2": 0.999, "tau": 1e-3}),
        (FedYogi, {}),
        (FedYogi, {"eta": 0.1, "beta_1": 0.0, "beta_2": 0.9, "tau": 1e-2}),
    ],
)
def test_numbers_are_flowers(kind: type[FedAvg], options: dict[str, Any], dtype: Any) -> None:
    rng = np.random.default_rng(5)
    rounds: list[list[Reply]] = [[(arrays(rng, dtype), n) for n in (3, 1, 12)] for _ in range(5)]
    same_as_flower(kind, arrays(rng, dtype), rounds, **options)


def test_with_the_defaults_fedavgm_has_the_bits_of_fedavg() -> None:
    rng = np.random.default_rng(1)
    model = arrays(rng, np.float32)
    replies: list[Reply] = [(arrays(rng, np.float32), n) for n in (3, 1, 12)]
    ours, _ = round_of_ours(FedAvgM(), 1, model, replies)
    mean, _ = round_of_ours(FedAvg(), 1, model, replies)
    assert ours is not None
    assert mean is not None
    assert [x.tobytes() for x in ours] == [x.tobytes() for x in mean]


@pytest.mark.parametrize("kind", FAMILY)
def test_counters_become_their_mean_and_have_no_moments(kind: type[FedAvg]) -> None:
    strategy = moving(kind)
    model: NDArrays = [np.zeros(2, np.float32), np.array(10), np.array([True, False, True])]
    reply: NDArrays = [np.ones(2, np.float32), np.array(14), np.array([False, False, True])]
    made, _ = round_of_ours(strategy, 1, model, [(reply, 1)])
    assert made is not None
    assert made[1] == 14
    assert made[2].tolist() == [False, False, True]
    assert [each.dtype for each in made] == [each.dtype for each in model]
    assert moments(strategy)
    for each in moments(strategy):
        assert [x.size for x in each] == [2, 0, 0]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("kind", FAMILY)
def test_moments_of_small_floats_are_float32(kind: type[FedAvg], dtype: Any) -> None:
    """In float16 the second moment of a delta below 2.4e-4 would be 0."""
    strategy = moving(kind)
    small: Any = dtype(1e-4)
    made, _ = round_of_ours(strategy, 1, [np.zeros(3, dtype)], [([np.full(3, small)], 1)])
    assert made is not None
    assert made[0].dtype == dtype
    assert (made[0] > 0).all()
    for each in moments(strategy):
        assert each[0].dtype == np.float32
        assert each[0].all()


@pytest.mark.parametrize("kind", FAMILY)
def test_a_number_whose_step_overflows_stays_with_its_moments(
    kind: type[FedAvg], caplog: pytest.LogCaptureFixture
) -> None:
    """-3e38 to 3e38 is a difference that float32 does not have."""
    strategy, plain = moving(kind), moving(kind)
    model: NDArrays = [np.full(3, -3e38, np.float32), np.zeros(2, np.float32)]
    sent: NDArrays = [np.array([3e38, -2.9e38, 3e38], np.float32), np.ones(2, np.float32)]
    calm: NDArrays = [model[0], sent[1]]
    made, _ = round_of_ours(strategy, 1, model, [(sent, 1)])
    expected, _ = round_of_ours(plain, 1, model, [(calm, 1)])
    assert made is not None
    assert expected is not None
    stays = [True, kind is not FedAvgM, True]  # 1e37 has a square that float32 does not have
    assert made[0].tolist()[0] == model[0].tolist()[0]
    assert made[1].tobytes() == expected[1].tobytes()
    for each in moments(strategy):
        assert [value == 0 for value in each[0].tolist()] == stays
    assert f"tensor 0: {sum(stays)} of 3 numbers overflow in the server's step" in caplog.text


def test_called_by_hand_without_a_model_it_says_what_to_give() -> None:
    replies: list[Reply] = [([np.ones(2)], 1)]
    with pytest.raises(InconsistentTensors, match="give initial_parameters"):
        round_of_ours(FedAdam(), 1, [], replies)


def test_a_mean_of_fewer_tensors_than_the_model_has_fails_the_round() -> None:
    model: NDArrays = [np.zeros(2), np.zeros(3)]
    with pytest.raises(InconsistentTensors, match="lacks the last 1 of the model's 2 tensors"):
        round_of_ours(FedAdam(), 1, model, [([np.ones(2)], 1)])


@pytest.mark.parametrize("kind", FAMILY)
def test_a_round_whose_metrics_fail_it_steps_no_moment(kind: type[FedAvg]) -> None:
    def fail(metrics: object) -> Any:
        raise ZeroWeight("no client measured anything")

    strategy = moving(kind)
    strategy.fit_metrics_aggregation_fn = fail
    with pytest.raises(ZeroWeight):
        round_of_ours(strategy, 1, [np.zeros(2)], [([np.ones(2)], 1)])
    assert moments(strategy) == []


def test_another_model_needs_another_strategy() -> None:
    strategy = FedAdam()
    round_of_ours(strategy, 1, [np.zeros(2)], [([np.ones(2)], 1)])
    with pytest.raises(InconsistentTensors, match="use a new strategy for a new model"):
        round_of_ours(strategy, 1, [np.zeros(3)], [([np.ones(3)], 1)])


def test_called_by_hand_it_goes_out_from_the_initial_parameters() -> None:
    """As with Flower's, whose tests call aggregate_fit directly."""
    strategy = FedAdam(initial_parameters=ndarrays_to_parameters([np.zeros(2)]), eta=0.0)
    for _ in range(2):
        made, _ = strategy.aggregate_fit(1, our_results([([np.ones(2)], 1)]), [])
        assert made is not None
        assert parameters_to_ndarrays(made)[0].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("kind", "option", "value", "advice"),
    [
        (FedAdam, "eta", -0.1, "give a number of at least 0"),
        (FedAdam, "eta", float("nan"), "give a number of at least 0"),
        (FedAdam, "beta_1", 1.0, "give a number of at least 0 and below 1"),
        (FedAdam, "beta_2", "0.9", "give a number of at least 0 and below 1"),
        (FedYogi, "tau", 0.0, "give a number above 0"),
        (FedAdagrad, "initial_accumulator_value", -1, "give a number of at least 0"),
        (FedAvgM, "server_momentum", 1.5, "give a number of at least 0 and below 1"),
        (FedAvgM, "server_learning_rate", True, "give a number of at least 0"),
    ],
)
def test_options_out_of_range_are_refused(
    kind: type[FedAvg], option: str, value: Any, advice: str
) -> None:
    with pytest.raises(InvalidStrategyOption, match=rf"{option} is .*: {advice}$"):
        kind(**{option: value})


@pytest.mark.parametrize("kind", FAMILY)
def test_a_run_that_another_strategy_began_has_no_moments_yet(kind: type[FedAvg]) -> None:
    fresh, loaded = moving(kind), moving(kind)
    loaded.load_state_dict({})
    model: NDArrays = [np.zeros(3)]
    replies: list[Reply] = [([np.ones(3)], 1)]
    made = [round_of_ours(each, 1, model, replies)[0] for each in (fresh, loaded)]
    assert made[0] is not None
    assert made[1] is not None
    assert made[0][0].tobytes() == made[1][0].tobytes()
