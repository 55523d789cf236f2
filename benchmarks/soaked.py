"""The job that ``python -m benchmarks.soak`` runs: a tiny model, and whoever is there."""

from __future__ import annotations

import numpy as np

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg

_AT_LEAST = 2
_SIZE = 1_000
"""Numbers in the model, float32."""


class Learner(NumPyClient):
    """Answers at once."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return [np.asarray(p * np.float32(0.99), p.dtype) for p in parameters], 10, {"a": 1.0}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(np.abs(parameters[0]).mean()), 10, {"accuracy": 0.5}


def server(context: ServerContext) -> ServerAppComponents:
    """Ask everybody who is there, as long as there are two."""
    strategy = FedAvg(
        min_fit_clients=_AT_LEAST,
        min_evaluate_clients=_AT_LEAST,
        min_available_clients=_AT_LEAST,
        initial_parameters=ndarrays_to_parameters([np.ones(_SIZE, np.float32)]),
    )
    rounds = context.run_config["rounds"]
    assert isinstance(rounds, int)
    return ServerAppComponents(strategy=strategy, config=ServerConfig(rounds, 60.0))


def client(context: ClientContext) -> Learner:
    """One of those who come and go."""
    return Learner()
