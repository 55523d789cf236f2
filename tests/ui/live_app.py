"""A federation whose rounds take a third of a second, and in which client-2 fails in round 3."""

from __future__ import annotations

import time

import numpy as np

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import FedAvg

ROUNDS = 14
CLIENTS = ("client-1", "client-2", "client-3")


class Slow(NumPyClient):
    def __init__(self, name: str) -> None:
        self._name = name

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        time.sleep(0.3)
        if (self._name, config["round"]) == ("client-2", 3):
            raise ValueError("no <b>data</b> today")
        return [parameters[0] + 1], 10, {"train_loss": 1 / (1 + float(parameters[0][0]))}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return 1 / (1 + float(parameters[0][0])), 10, {"accuracy": float(parameters[0][0])}


def client(context: ClientContext) -> NumPyClient:
    return Slow(context.client_id)


def server() -> ServerAppComponents:
    strategy = FedAvg(
        initial_parameters=ndarrays_to_parameters([np.zeros(2)]),
        min_available_clients=len(CLIENTS),
        on_fit_config_fn=lambda server_round: {"round": server_round},
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(ROUNDS, 30.0))
