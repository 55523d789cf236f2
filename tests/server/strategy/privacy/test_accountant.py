"""Epsilon: exact for rounds that anybody may know, amplified by sampling for those nobody may."""

from __future__ import annotations

import importlib.util
import logging
import math
from typing import Any

import numpy as np
import pytest
from scipy import optimize, stats

from flmq.common.errors import AggregationError
from flmq.journal.state import decode_state, encode_state
from flmq.server.strategy import FedAvg
from flmq.server.strategy.privacy.accountant import Accountant
from tests.server.strategy.oracle import round_of_ours
from tests.server.strategy.privacy.wrapped import after, private, replies


def exact(noise_multiplier: float, delta: float) -> float:
    """Balle & Wang, 2018, Theorem 8: delta = Phi(1/2s - eps s) - e^eps Phi(-1/2s - eps s)."""

    def excess(epsilon: float) -> float:
        a, b = 1 / (2 * noise_multiplier), epsilon * noise_multiplier
        log_tail = epsilon + stats.norm.logcdf(-a - b)
        return float(stats.norm.cdf(a - b) - math.exp(log_tail) - delta)

    return float(optimize.brentq(excess, 0, 1e4))


def accountant(num_clients: int | None = None, noise: float = 1.0) -> Accountant:
    return Accountant(noise, 1e-5, num_clients)


@pytest.mark.parametrize("noise", [0.7, 1.0, 3.0, 10.0])
@pytest.mark.parametrize("rounds", [1, 10])
def test_rounds_that_anybody_may_know_compose_exactly(noise: float, rounds: int) -> None:
    """T rounds of noise z are one of noise z / sqrt(T)."""
    spent = accountant(noise=noise)
    for _ in range(rounds):
        spent.spend(["a", "b"], 2)
    assert spent.epsilon() == pytest.approx(exact(noise / math.sqrt(rounds), 1e-5), rel=1e-4)


def test_epsilon_is_that_of_the_client_that_took_part_most_often() -> None:
    spent = accountant()
    assert spent.epsilon() == 0.0
    for clients in (["a", "b"], ["b", "c"], ["c", "b"], []):
        spent.spend(clients, 2)
    assert spent.epsilon() == pytest.approx(exact(1 / math.sqrt(3), 1e-5), rel=1e-4)


def test_sampling_that_stays_secret_amplifies() -> None:
    """50 of 1000, 100 rounds: much less than without; all of them: a replaced client has 2 C."""
    open_to_all, secret, all_of_them = accountant(), accountant(1000), accountant(50)
    for _ in range(100):
        for each in (open_to_all, secret, all_of_them):
            each.spend((f"c{number}" for number in range(50)), 50)
    told = [each.epsilon() for each in (secret, open_to_all, all_of_them)]
    assert told == sorted(told)  # type: ignore[type-var]
    assert told[0] is not None
    assert told[0] < 40
    # Renyi's bound is at most a few per cent above the exact epsilon of noise z / 2.
    assert told[2] == pytest.approx(exact(0.5 / math.sqrt(100), 1e-5), rel=0.05)


def test_more_noise_and_a_larger_delta_are_less_epsilon() -> None:
    def told(noise: float, delta: float) -> float:
        spent = Accountant(noise, delta, None)
        spent.spend(["a"], 1)
        epsilon = spent.epsilon()
        assert epsilon is not None
        return epsilon

    assert told(2.0, 1e-5) < told(1.0, 1e-5) < told(1.0, 1e-7)


def test_without_noise_epsilon_is_infinite() -> None:
    spent = accountant(noise=0.0)
    spent.spend(["a"], 1)
    assert spent.epsilon() == math.inf


@pytest.mark.parametrize("num_clients", [None, 100])
def test_what_was_spent_survives(num_clients: int | None) -> None:
    spent, resumed = accountant(num_clients), accountant(num_clients)
    for _ in range(3):
        spent.spend(["a", "b"], 5)
    saved: Any = decode_state(encode_state({"spent": spent.state_dict()}))
    resumed.load_state_dict(saved["spent"])
    assert resumed.epsilon() == spent.epsilon()
    resumed.spend(["a"], 5)
    assert resumed.epsilon() > spent.epsilon()  # type: ignore[operator]


def test_without_the_library_it_says_how_to_have_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with caplog.at_level(logging.WARNING):
        strategy = private(noise_multiplier=1.0)
    assert [record.getMessage() for record in caplog.records] == [
        "epsilon is not computed: install it with pip install 'flmq[privacy]'"
    ]
    _, metrics = after(strategy, [np.zeros(1)], replies(*[np.zeros(1)] * 4))
    assert "epsilon" not in metrics


def test_each_round_tells_epsilon_and_delta() -> None:
    strategy = private(noise_multiplier=2.0, delta=1e-6)
    for server_round in (1, 2):
        _, metrics = after(strategy, [np.zeros(1)], replies(*[np.zeros(1)] * 4), server_round)
        expected = exact(2 / math.sqrt(server_round), 1e-6)
        assert metrics["epsilon"] == pytest.approx(expected, rel=1e-4)
        assert metrics["delta"] == 1e-6


def test_a_round_that_tells_nothing_spends_nothing() -> None:
    strategy = private(strategy=FedAvg(accept_failures=False), noise_multiplier=1.0)
    sent = replies(*[np.zeros(1)] * 3)
    assert round_of_ours(strategy, 1, [np.zeros(1)], sent, [RuntimeError()]) == (None, {})
    assert round_of_ours(strategy, 2, [np.zeros(1)], []) == (None, {})
    assert strategy.state_dict()["spent"] == {}


def test_noise_that_was_drawn_is_spent_even_if_the_step_after_it_fails() -> None:
    class Failing(FedAvg):
        def update(self, server_round: int, parameters: Any, combined: Any) -> Any:
            combined.ndarrays()
            raise AggregationError("the step failed")

    strategy = private(strategy=Failing(), noise_multiplier=1.0)
    with pytest.raises(AggregationError, match="the step failed"):
        round_of_ours(strategy, 1, [np.zeros(1)], replies(np.zeros(1), np.zeros(1)))
    assert strategy.state_dict()["spent"] == {"client-000": 1, "client-001": 1}
