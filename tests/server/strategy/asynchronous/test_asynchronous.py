"""FedBuff and FedAsync, worked out by hand, and the same bits in every order."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flmq.common import Parameters, ndarrays_to_parameters, parameters_to_ndarrays
from flmq.common.dtypes import NARROW_FLOATS
from flmq.common.errors import (
    InconsistentTensors,
    InvalidReturnValue,
    NonFiniteValues,
    StoredDataError,
)
from flmq.server.components import InvalidComponents, ServerAppComponents, build_server
from flmq.server.server import Server
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAsync, FedAvg, FedBuff
from flmq.server.strategy.asynchronous import Asynchronous
from flmq.server.strategy.asynchronous.update_sum import BaseNotKept, UpdateRes, UpdateSum
from flmq.server.strategy.options import InvalidStrategyOption
from flmq.server.streams.asynchronous_server import AsynchronousServer
from tests.server.proxies import IdleProxy, fit_res, manager_of, model

Update = tuple[float, float, int]
"""What a client was sent, what it gives back, and how stale that is."""


def stepped(strategy: Asynchronous, present: float, *updates: Update) -> float:
    strategy.global_parameters = model(present)
    results = [
        (IdleProxy(f"c{i}"), UpdateRes.of(fit_res(model(got), 10**i), model(sent), stale))
        for i, (sent, got, stale) in enumerate(updates)
    ]
    made, _ = strategy.aggregate_fit(1, results, [])  # type: ignore[arg-type]
    assert made is not None
    return float(parameters_to_ndarrays(made)[0])


def test_fedbuff_by_hand() -> None:
    """The model is 10, K is 3 and eta_g 1/2.

    One trained from 8 to 12 while the model made 3 steps: weight 1/sqrt(1 + 3) = 1/2, 4/2 = 2.
    One trained from 10 to 13, and the model made no step: weight 1, 3.
    One trained from 6 to 0 while it made 8 steps: weight 1/sqrt(9) = 1/3, -6/3 = -2.
    The sum is 3, the step 1/2 / 3 * 3 = 1/2. That their examples are 1, 10 and 100 is no matter.
    """
    strategy = FedBuff(buffer_size=3, server_learning_rate=0.5)
    updates = ((8.0, 12.0, 3), (10.0, 13.0, 0), (6.0, 0.0, 8))
    assert stepped(strategy, 10.0, *updates) == pytest.approx(10.5, abs=1e-15)


def test_a_step_is_rounded_once_to_a_narrow_dtype() -> None:
    """The step is 2^-8 + 2^-40, just above half of what lies between 1 and the next bfloat16."""
    strategy, one = FedBuff(buffer_size=1, server_learning_rate=1.0), NARROW_FLOATS["bfloat16"]
    strategy.global_parameters = model(np.ones(1, one))
    sent, got = np.zeros(1), np.array([2**-8 + 2**-40])
    update = UpdateRes.of(fit_res(model(got), 1), model(sent), 0)
    made, _ = strategy.aggregate_fit(1, [(IdleProxy("a"), update)], [])
    assert made is not None
    assert parameters_to_ndarrays(made)[0].astype(float).tolist() == [1 + 2**-7]


def test_a_step_beyond_the_largest_number_fails() -> None:
    """One client may send any finite number, and a model with infinity in it is lost."""
    largest, strategy = np.full(2, np.finfo(np.float32).max), FedBuff(buffer_size=1)
    strategy.global_parameters = model(largest)
    update = UpdateRes.of(fit_res(model(largest), 1), model(np.zeros(2, np.float32)), 0)
    with pytest.raises(NonFiniteValues, match="tensor 0 became NaN or infinity"):
        strategy.aggregate_fit(1, [(IdleProxy("a"), update)], [])
    assert strategy.global_parameters == model(largest)


def test_an_update_has_its_weight_whoever_shares_the_buffer() -> None:
    """Weights are not divided by their sum: stale updates alone make a small step.

    Both trained from 0 to 6 while the model made 8 steps: 1/3 each, the mean is 2, not 6.
    """
    assert stepped(FedBuff(), 1.0, (0.0, 6.0, 8), (0.0, 6.0, 8)) == pytest.approx(3.0, abs=1e-15)


def test_fedasync_by_hand() -> None:
    """The model is 10, a client gives 12, alpha is 1/2.

    Fresh: 1/2 * 10 + 1/2 * 12 = 11. Of staleness 3: a_s = 1/2 * 1/2, 3/4 * 10 + 1/4 * 12 = 10.5.
    By hinge with a = 10, b = 4: of staleness 4 as if fresh, of 5 with a_s = 1/22.
    """
    assert stepped(FedAsync(alpha=0.5), 10.0, (10.0, 12.0, 0)) == 11.0
    assert stepped(FedAsync(alpha=0.5), 10.0, (-7.0, 12.0, 3)) == 10.5
    assert stepped(FedAsync(alpha=0.5, staleness="hinge"), 10.0, (0.0, 12.0, 4)) == 11.0
    got = stepped(FedAsync(alpha=0.5, staleness="hinge"), 10.0, (0.0, 12.0, 5))
    assert got == pytest.approx(10.0 + 2 / 22, abs=1e-15)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"staleness": "constant"}, [1.0, 1.0, 1.0, 1.0]),
        ({}, [1.0, 1 / math.sqrt(2), 0.5, 1 / math.sqrt(11)]),
        ({"staleness_a": 1}, [1.0, 1 / 2, 1 / 4, 1 / 11]),
        ({"staleness": "hinge"}, [1.0, 1.0, 1.0, 1 / 61]),
        ({"staleness": "hinge", "staleness_a": 2, "staleness_b": 1}, [1.0, 1.0, 1 / 5, 1 / 19]),
        ({"staleness": lambda staleness: 3.0}, [3.0, 3.0, 3.0, 3.0]),
    ],
)
def test_weights_by_staleness(options: dict[str, Any], expected: list[float]) -> None:
    strategy = FedBuff(**options)
    assert [strategy.weight(t) for t in (0, 1, 3, 10)] == pytest.approx(expected, rel=1e-15)


@settings(max_examples=40, deadline=None)
@given(data=st.data(), tree=st.booleans())
def test_the_order_within_a_buffer_does_not_change_a_bit(data: st.DataObject, tree: bool) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    bases = [ndarrays_to_parameters([rng.normal(size=40).astype(np.float32)]) for _ in range(3)]
    updates = [
        UpdateRes.of(
            fit_res(model((10.0 ** (i - 4) * rng.normal(size=40)).astype(np.float32)), i),
            bases[i % 3],
            i % 3,
        )
        for i in range(8)
    ]
    order = data.draw(st.permutations(range(8)))
    assert _bits(updates, order, tree) == _bits(updates, range(8), False)


def _bits(updates: list[UpdateRes], order: Any, tree: bool) -> bytes:
    strategy = FedBuff(buffer_size=8, server_learning_rate=0.3)
    present = model(np.linspace(-1, 1, 40, dtype=np.float32))
    sums = [strategy.combine(1, present), strategy.combine(1, present)]
    for place, index in enumerate(order):
        sums[place % 2 if tree else 0].add(f"c{index}", updates[index])
    sums[0].merge(sums[1])
    return strategy.update(1, present, sums[0].finish()).tensors[0]


def test_an_update_that_does_not_fit_changes_nothing() -> None:
    total = UpdateSum(lambda staleness: 1.0, model([0.0, 0.0], [0.0]))
    total.add("a", fit_res(model([1.0, 2.0], [3.0]), 1))
    with pytest.raises(InconsistentTensors, match="the reply of b"):
        total.add("b", fit_res(model([1.0, 2.0]), 1))
    with pytest.raises(Exception, match="the update of c"):
        total.add("c", fit_res(model([1.0, 2.0], [np.inf]), 1))
    assert [list(tensor) for tensor in total.finish()] == [[1.0, 2.0], [3.0]]


def test_what_does_not_move_keeps_its_bits_and_narrow_floats_stay_narrow() -> None:
    """-0.0 stays, and 2^60 + 1, which float64 does not hold; bfloat16 is rounded once."""
    narrow = np.dtype(ml_dtypes.bfloat16)
    present = ndarrays_to_parameters(
        [np.array([-0.0, 1.0], np.float32), np.array(2**60 + 1), np.array([1.0, 2.0], narrow)]
    )
    got = ndarrays_to_parameters(
        [np.array([-0.0, 3.0], np.float32), np.array(2**60 + 1), np.array([1.0, 2.5], narrow)]
    )
    strategy = FedBuff(server_learning_rate=0.5)
    total = strategy.combine(1, present)
    total.add("a", fit_res(got, 1))
    floats, counter, narrows = parameters_to_ndarrays(strategy.update(1, present, total.finish()))
    assert floats.tobytes() == np.array([-0.0, 2.0], np.float32).tobytes()
    assert int(counter) == 2**60 + 1
    assert narrows.dtype == narrow
    assert narrows.astype(float).tolist() == [1.0, 2.25]


class _Gone(Parameters):
    """Parameters whose file was deleted."""

    @property
    def tensors(self) -> list[bytes]:
        raise StoredDataError("no such file")

    @tensors.setter
    def tensors(self, value: list[bytes]) -> None:
        pass


def test_a_base_that_is_no_longer_kept_is_named() -> None:
    update = UpdateRes.of(fit_res(model(1.0), 1), _Gone([], "numpy.ndarray"), 2)
    with pytest.raises(BaseNotKept, match="that a trained from is no longer kept"):
        FedBuff().combine(3, model(0.0)).add("a", update)


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: FedBuff(buffer_size=0), "buffer_size is 0"),
        (lambda: FedBuff(concurrency=1.5), "concurrency is 1.5"),  # type: ignore[arg-type]
        (lambda: FedBuff(max_staleness=-1), "max_staleness is -1"),
        (lambda: FedBuff(evaluate_every=-1), "evaluate_every is -1"),
        (lambda: FedBuff(max_failures=0), "max_failures is 0"),
        (lambda: FedBuff(server_learning_rate=0.0), "server_learning_rate is 0.0"),
        (lambda: FedBuff(server_learning_rate=math.nan), "server_learning_rate is nan"),
        (lambda: FedBuff(staleness="linear"), "staleness is 'linear'"),
        (lambda: FedBuff(staleness_a=-1.0), "staleness_a is -1"),
        (lambda: FedAsync(buffer_size=2), "buffer_size is 2"),
        (lambda: FedAsync(alpha=1.1), "alpha is 1.1"),
    ],
)
def test_options_out_of_range_are_refused(make: Callable[[], object], named: str) -> None:
    with pytest.raises(InvalidStrategyOption, match=named):
        make()


@pytest.mark.parametrize("weight", [0.0, -1.0, math.nan, "1", None])
def test_a_function_of_staleness_that_gives_no_weight_is_named(weight: Any) -> None:
    with pytest.raises(InvalidReturnValue, match=r"staleness\(4\) returned"):
        FedBuff(staleness=lambda staleness: weight).weight(4)


def test_the_strategy_says_which_server_runs_it() -> None:
    def kind(**parts: Any) -> type[Server]:
        return type(build_server(ServerAppComponents(**parts))[0])

    assert kind(strategy=FedBuff()) is kind(strategy=FedAsync()) is AsynchronousServer
    assert kind(strategy=FedAvg()) is kind() is Server
    rounds = Server(client_manager=manager_of("a"), strategy=FedBuff())
    with pytest.raises(InvalidComponents, match="FedBuff runs without rounds"):
        kind(server=rounds)
    with pytest.raises(InvalidComponents, match="min_results is for rounds"):
        kind(strategy=FedBuff(), config=ServerConfig(min_results=2))
