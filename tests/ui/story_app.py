"""A federation in which known things go wrong: the run whose pages are looked at.

Eight clients fit one curve. Client 3 is slow in round 7; clients 4 and 6 stand still in rounds 9
and 4 until they are killed.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np

from flmq.client import ClientContext, NumPyClient
from flmq.common import (
    Config,
    EvaluateIns,
    FitIns,
    Metrics,
    NDArray,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
)
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedAvg

MARKS = "FLMQ_TEST_MARKS"
CLIENTS = tuple(f"client-{number:02}" for number in range(1, 9))
ROUNDS = 12
SLOW = ("client-03", 7)
MISSING = ("client-04", 9)
KILLED = ("client-06", 4)
SLEEP = 4.0
"""Seconds for which the slow client sleeps."""
DEADLINE = 8.0
"""Seconds that the round may take whose client is missing."""
_PATIENCE = 120.0
_FEATURES = 12


class Curve(NumPyClient):
    """Fits sines to points of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        rng = np.random.default_rng(list(name.encode()))
        x = rng.uniform(-1, 1, 400)
        self._features: NDArray = np.stack([np.sin(k * x) for k in range(1, _FEATURES + 1)], axis=1)
        self._y = np.sin(3 * x) + 0.5 * x + rng.normal(0, 0.05, 400)
        self._pause = 0.15 + 0.03 * (sum(name.encode()) % 5)

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        server_round = int(str(config["round"]))
        time.sleep(self._pause)
        self._misfortune(server_round)
        weights = parameters[0].copy()
        for _ in range(2):
            error = self._features @ weights - self._y
            weights -= 0.1 * self._features.T @ error / len(error)
        error = self._features @ weights - self._y
        return [weights], len(error), {"train_loss": float(np.mean(error**2))}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        error = self._features @ parameters[0] - self._y
        within = float(np.mean(np.abs(error) < 0.15))
        return float(np.mean(error**2)), len(error), {"accuracy": within}

    def _misfortune(self, server_round: int) -> None:
        if (self._name, server_round) == SLOW:
            time.sleep(SLEEP)
        mark = Path(os.environ[MARKS]) / f"{self._name}-{server_round}"
        if (self._name, server_round) in (MISSING, KILLED) and not mark.exists():
            mark.touch()
            time.sleep(_PATIENCE)  # until it is killed


class OfAll(FedAvg):
    """Waits for all clients but while one is missing, and marks each round that begins."""

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        self.min_available_clients = len(CLIENTS) - (MISSING[1] < server_round < ROUNDS)
        asked = super().configure_fit(server_round, parameters, client_manager)
        (Path(os.environ[MARKS]) / f"round-{server_round}").touch()
        return asked

    def configure_evaluate(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, EvaluateIns]]:
        self.min_available_clients = len(CLIENTS) - (MISSING[1] <= server_round < ROUNDS)
        return super().configure_evaluate(server_round, parameters, client_manager)


def client(context: ClientContext) -> NumPyClient:
    """Make a client."""
    return Curve(context.client_id)


def server() -> ServerAppComponents:
    """Make the server's parts."""
    options: dict[str, Any] = {
        "min_fit_clients": len(CLIENTS) - 1,
        "min_evaluate_clients": 1,
        "min_available_clients": len(CLIENTS),
        "initial_parameters": ndarrays_to_parameters([np.zeros(_FEATURES)]),
        "on_fit_config_fn": lambda server_round: {"round": server_round},
    }
    config = ServerConfig(ROUNDS, lambda number: DEADLINE if number == MISSING[1] else 90.0)
    return ServerAppComponents(strategy=OfAll(**options), config=config)
