"""FedNova: its formula on paper, its limits, and that it has no bias where FedAvg has one."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest

from flmq.common import NDArrays, Parameters, Scalar, parameters_to_ndarrays
from flmq.common.errors import InconsistentTensors
from flmq.server.strategy import FedAvg, FedNova
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.proxies import fit_res, model
from tests.server.strategy.heterogeneous.quadratics import ETA, Quadratic, number, rounds
from tests.server.strategy.oracle import our_results, round_of_ours


def test_three_clients_on_paper() -> None:
    """w = 10; w_i = 8, 4, 10; tau_i = 1, 3, 2; n_i = 1, 1, 2, so p_i = 1/4, 1/4, 1/2.

    (w_i - w) / tau_i = -2, -2, 0: their mean is -1. tau_eff = 1/4 + 3/4 + 1 = 2. So w = 10 - 2 = 8.
    """
    replies: Any = [
        (number(8), 1, {"tau": 1}),
        (number(4), 1, {"tau": 3}),
        (number(10), 2, {"tau": 2.0}),
    ]
    made, metrics = round_of_ours(FedNova(), 1, number(10), replies)
    assert made is not None
    assert made[0].tolist() == [8.0]
    assert metrics == {"tau": 2.0}


def test_with_as_many_steps_everywhere_it_is_fedavg() -> None:
    rng = np.random.default_rng(5)
    start: NDArrays = [rng.normal(size=(3, 2)), np.array(rng.normal())]
    replies: Any = [
        ([x + rng.normal(size=x.shape) for x in start], n, {"tau": 7}) for n in (1, 4, 9)
    ]
    ours, _ = round_of_ours(FedNova(), 1, start, replies)
    plain, _ = round_of_ours(FedAvg(), 1, start, replies)
    assert ours is not None
    assert plain is not None
    for one, other in zip(ours, plain, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12)


def test_a_constant_gradient_counts_by_examples_however_many_steps_it_is_followed() -> None:
    """Losses ``g_i x``: after tau_i steps ``w_i = w - eta tau_i g_i``, and so ``d_i = g_i``.

    With n_i = 1, 3, g_i = 1, -1 and tau_i = 8, 2 the true gradient is 1/4 - 3/4 = -1/2, and tau_eff
    is 8/4 + 6/4 = 3.5: FedNova steps by +0.1 * 3.5 / 2. FedAvg steps by -0.1 (8/4 - 6/4), uphill.
    """
    replies: Any = [
        (number(0.0 - ETA * 8 * 1), 1, {"tau": 8}),
        (number(0.0 + ETA * 2 * 1), 3, {"tau": 2}),
    ]
    ours, _ = round_of_ours(FedNova(), 1, number(0), replies)
    plain, _ = round_of_ours(FedAvg(), 1, number(0), replies)
    assert ours is not None
    assert plain is not None
    assert ours[0].tolist() == pytest.approx([0.175], rel=1e-12)
    assert plain[0].tolist() == pytest.approx([-0.05], rel=1e-12)


def test_where_it_goes_and_where_fedavg_goes() -> None:
    """``(x - b_i)^2 / 2``, b = 0 and 1, p = 1/2 each: the optimum is 1/2; 20 steps and 2 steps.

    One round takes ``x - b_i`` to ``r_i (x - b_i)`` with ``r_i = (1 - eta)^tau_i``. FedAvg stops
    where ``sum p_i (1 - r_i) (x - b_i) = 0``, at ``(1 - r_2) / (2 - r_1 - r_2)``: 0.178. FedNova
    where the same holds of ``(1 - r_i) / tau_i``, the mean gradient over the steps: 0.684, as
    near as eta tau = 2 lets it. As eta becomes small, it goes to 1/2; FedAvg to ``2 / (20 + 2)``.
    """
    steps = (20, 2)
    r = [(1 - ETA) ** tau for tau in steps]

    def clients() -> dict[str, Quadratic]:
        return {"a": Quadratic(1, 0, steps[0]), "b": Quadratic(1, 1, steps[1])}

    (plain,) = rounds(FedAvg(), clients(), number(0), range(1, 100))
    (nova,) = rounds(FedNova(), clients(), number(0), range(1, 100))
    assert plain[0] == pytest.approx((1 - r[1]) / (2 - r[0] - r[1]), rel=1e-9)
    q = [(1 - each) / tau for each, tau in zip(r, steps, strict=True)]
    assert nova[0] == pytest.approx(q[1] / (q[0] + q[1]), rel=1e-9)
    assert abs(nova[0] - 0.5) < 0.6 * abs(plain[0] - 0.5)
    small = [(1 - (1 - 1e-6) ** tau) / tau for tau in steps]
    assert small[1] / sum(small) == pytest.approx(0.5, abs=1e-5)


def test_counters_are_averaged_as_by_fedavg() -> None:
    start: NDArrays = [np.array([1.0], np.float32), np.array(10), np.array([True])]
    replies: Any = [
        ([np.array([3.0], np.float32), np.array(14), np.array([True])], 3, {"tau": 50}),
        ([np.array([1.0], np.float32), np.array(10), np.array([False])], 1, {"tau": 1}),
    ]
    made, _ = round_of_ours(FedNova(), 1, start, replies)
    assert made is not None
    assert [each.tolist() for each in made[1:]] == [13, [True]]
    assert [each.dtype for each in made] == [each.dtype for each in start]


@pytest.mark.parametrize(
    "tau", [None, True, "3", b"3", 0, 0.5, -1, 100_001, float("nan"), float("inf"), 10**400]
)
def test_a_reply_without_a_count_of_steps_is_refused(tau: Scalar | None) -> None:
    metrics = {} if tau is None else {"tau": tau}
    reason = FedNova().check_fit_res(fit_res(model([1.0]), 1, metrics))
    assert reason is not None
    assert 'the metric "tau" is' in reason
    assert "from 1 to 100000" in reason
    assert len(reason) < 250


def test_counts_of_steps_are_integers_or_floats_within_the_limit() -> None:
    for tau in (1, 1.5, 100_000):
        assert FedNova().check_fit_res(fit_res(model([1.0]), 1, {"tau": tau})) is None
    assert FedNova(max_tau=10).check_fit_res(fit_res(model([1.0]), 1, {"tau": 11})) is not None
    with pytest.raises(InvalidStrategyOption, match="max_tau is 0"):
        FedNova(max_tau=0)


def test_merged_parts_have_the_bits_of_the_whole() -> None:
    rng = np.random.default_rng(3)
    start = model(rng.normal(size=50).astype(np.float32))
    results = our_results(
        [([rng.normal(size=50).astype(np.float32)], n, {"tau": n}) for n in range(1, 7)]
    )

    def combined(*parts: list[Any]) -> bytes:
        sums = []
        for part in parts:
            sums.append(FedNova().combine(1, start))
            for client, res in part:
                sums[-1].add(client.cid, res)
        for other in sums[1:]:
            sums[0].merge(other)
        finished = sums[0].finish()
        assert finished.num_replies == 6
        return finished.ndarrays()[0].tobytes()

    assert combined(results) == combined(results[3:], results[:1], results[1:3])


def test_a_reply_of_other_shapes_fails_the_round_and_is_named() -> None:
    combine = FedNova().combine(1, model([1.0, 2.0]))
    with pytest.raises(InconsistentTensors, match="client-7"):
        combine.add("client-7", fit_res(model([1.0]), 1, {"tau": 1}))


def test_a_bfloat16_model_is_rounded_once() -> None:
    """From 1 to 1 and to 1 + 2**-6: the mean is 1 + 2**-7, the number after 1 in bfloat16."""
    start: NDArrays = [np.ones(1, ml_dtypes.bfloat16)]
    replies: Any = [
        ([np.array([1.0], ml_dtypes.bfloat16)], 1, {"tau": 1}),
        ([np.array([1 + 2**-6], ml_dtypes.bfloat16)], 1, {"tau": 1}),
    ]
    made, _ = round_of_ours(FedNova(), 1, start, replies)
    assert made is not None
    assert made[0].dtype == ml_dtypes.bfloat16
    assert float(made[0][0]) == 1 + 2**-7


def test_names_of_tensors_stay() -> None:
    strategy = FedNova()
    strategy.global_parameters = Parameters(model([1.0]).tensors, "numpy.ndarray", ("layer",))
    made, _ = strategy.aggregate_fit(1, our_results([(number(2.0), 1, {"tau": 1})]), [])
    assert made is not None
    assert made.names == ("layer",)
    assert parameters_to_ndarrays(made)[0].tolist() == [2.0]
