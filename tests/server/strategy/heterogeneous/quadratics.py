"""Clients with one number and a quadratic loss each, and rounds of them in this process.

Client i minimizes ``a_i / 2 (x - b_i)^2``, with gradient ``a_i (x - b_i)``. Together they minimize
the sum at ``sum a_i b_i / sum a_i``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flmq.client import NumPyClient
from flmq.client.learning import ScaffoldClient, proximal_gradient
from flmq.common import (
    Config,
    FitRes,
    Metrics,
    NDArrays,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.round import Outcome
from flmq.server.client_proxy import ClientProxy
from flmq.server.job.client_failure import ClientFailure
from flmq.server.strategy import Strategy
from flmq.server.strategy.reply_check import check_fit_reply
from tests.server.proxies import manager_of

ETA = 0.1


class Quadratic(NumPyClient):
    """Takes so many steps of gradient descent, near the global model if it is told to be."""

    def __init__(self, a: float, b: float, steps: int, num_examples: int = 1) -> None:
        self.a, self.b, self.steps, self.num_examples = a, b, steps, num_examples

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        y, mu = parameters[0], config.get("proximal_mu", 0.0)
        for _ in range(self.steps):
            (proximal,) = proximal_gradient([y], parameters, mu)
            y = y - ETA * (self.a * (y - self.b) + proximal)
        return [y], self.num_examples, {"tau": self.steps}


class ScaffoldQuadratic(ScaffoldClient):
    """The same with the correction."""

    def __init__(self, state_dir: Path | None, a: float, b: float, steps: int) -> None:
        super().__init__(state_dir)
        self.a, self.b, self.steps = a, b, steps

    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        (y,), (h,) = parameters, correction
        for _ in range(self.steps):
            y -= ETA * (self.a * (y - self.b) + h)
        return [y], self.steps * ETA, 1, {}


Fate = Callable[[str, Callable[[], FitRes]], FitRes | None]
"""What becomes of a client's task: its reply, or None if none counts."""


def once(client_id: str, fit: Callable[[], FitRes]) -> FitRes | None:
    """Nothing goes wrong."""
    return fit()


def rounds(
    strategy: Strategy,
    clients: Mapping[str, NumPyClient],
    model: NDArrays,
    server_rounds: Sequence[int],
    fate: Fate = once,
) -> NDArrays:
    """Run rounds as the server does, and return the model."""
    parameters = ndarrays_to_parameters(model)
    for server_round in server_rounds:
        strategy.global_parameters = parameters
        manager = manager_of(*clients, seed=server_round)
        asked = strategy.configure_fit(server_round, parameters, manager)
        results: list[tuple[ClientProxy, FitRes]] = []
        failures: list[Any] = []
        for proxy, ins in sorted(asked, key=lambda pair: pair[0].cid):
            client = clients[proxy.cid].to_client()
            try:
                res = fate(proxy.cid, lambda client=client, ins=ins: client.fit(ins))  # type: ignore[misc]
            except Exception as error:
                failures.append(failure(proxy.cid, error))
                continue
            if res is not None:
                assert check_fit_reply(ins.parameters, res, strategy.reply_check) is None
                assert strategy.check_fit_res(res) is None
                results.append((proxy, res))
        made, _ = strategy.aggregate_fit(server_round, results, failures)
        parameters = parameters if made is None else made
    return parameters_to_ndarrays(parameters)


def failure(client_id: str, error: Exception) -> Exception:
    """What a server makes of an error of a client's."""
    return ClientFailure(client_id, Outcome.FAILED, f"{type(error).__name__}: {error}")


def number(value: float) -> NDArrays:
    """A model of one number."""
    return [np.array([value], np.float64)]
