"""FedProx and FaultTolerantFedAvg: FedAvg with a word more to clients, or a condition."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flmq.server.strategy import FaultTolerantFedAvg, FedProx
from flmq.server.strategy.options import InvalidStrategyOption
from tests.server.proxies import IdleProxy, evaluate_res, manager_of, model
from tests.server.strategy.oracle import Reply, our_results, same_as_flower


def test_fedprox_tells_clients_mu_beside_what_the_user_tells_them() -> None:
    strategy = FedProx(
        proximal_mu=0.25, on_fit_config_fn=lambda server_round: {"lr": 0.1, "proximal_mu": 7.0}
    )
    for _, ins in strategy.configure_fit(1, model([1.0]), manager_of("a", "b")):
        assert ins.config == {"lr": 0.1, "proximal_mu": 0.25}
    plain = FedProx(proximal_mu=0.0).configure_fit(1, model([1.0]), manager_of("a", "b"))
    assert [ins.config for _, ins in plain] == [{"proximal_mu": 0.0}] * 2


@pytest.mark.parametrize("mu", [-1.0, float("inf"), None])
def test_fedprox_refuses_a_mu_out_of_range(mu: Any) -> None:
    with pytest.raises(InvalidStrategyOption, match=r"proximal_mu is .*: give a number"):
        FedProx(proximal_mu=mu)


@pytest.mark.parametrize(
    ("kind", "options"), [(FedProx, {"proximal_mu": 0.1}), (FaultTolerantFedAvg, {})]
)
def test_their_mean_is_flowers(kind: Any, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(5)
    rounds: list[list[Reply]] = [
        [([rng.normal(size=9).astype(np.float32)], n) for n in (3, 1, 12)] for _ in range(2)
    ]
    same_as_flower(kind, [np.zeros(9, np.float32)], rounds, **options)


@pytest.mark.parametrize(("failed", "counts"), [(0, True), (2, True), (3, False), (50, False)])
def test_a_round_counts_if_enough_complete(
    failed: int, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Two results; at a rate of one half, two failures are still not too many."""
    strategy = FaultTolerantFedAvg()
    failures: list[Any] = [RuntimeError("away")] * failed
    results = our_results([([np.ones(2)], 1), ([np.ones(2)], 1)])
    made, _ = strategy.aggregate_fit(4, results, failures)
    assert (made is not None) == counts
    told = f"round 4: 2 of {2 + failed} clients completed, and min_completion_rate_fit is 0.5"
    assert (told in caplog.text) == (not counts)
    evaluations: list[Any] = [(IdleProxy("a"), evaluate_res(1.5, 2))] * 2
    loss, _ = strategy.aggregate_evaluate(4, evaluations, failures)
    assert loss == (1.5 if counts else None)


def test_nobody_who_completed_is_never_enough() -> None:
    strategy = FaultTolerantFedAvg(min_completion_rate_fit=0.0, min_completion_rate_evaluate=0.0)
    assert strategy.aggregate_fit(1, [], [RuntimeError("away")]) == (None, {})
    assert strategy.aggregate_evaluate(1, [], []) == (None, {})


@pytest.mark.parametrize("option", ["min_completion_rate_fit", "min_completion_rate_evaluate"])
def test_rates_out_of_range_are_refused(option: str) -> None:
    options: dict[str, Any] = {option: 1.5}
    with pytest.raises(InvalidStrategyOption, match=rf"{option} is 1.5: .*at least 0.*at most 1"):
        FaultTolerantFedAvg(**options)
