"""An app for tests with real processes: its clients mark that they train, and can be held there.

``FLMQ_TEST_MARKS`` names a folder. A client writes ``<id>-<round>-<pid>`` when it begins to train,
and goes on once there is no ``hold-<id>-<round>``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg

_HELD_AT_MOST = 120.0


class HeldClient(NumPyClient):
    """Adds what depends on its id and the round, in float32, so that order would show."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        server_round = int(config["server_round"])
        _mark_and_wait(self.client_id, server_round)
        rng = np.random.default_rng([*self.client_id.encode(), server_round])
        model = [p * np.float32(0.9) + rng.normal(size=p.shape).astype(p.dtype) for p in parameters]
        return model, 1 + sum(self.client_id.encode()) % 5, {}


def _mark_and_wait(client_id: str, server_round: int) -> None:
    folder = os.environ.get("FLMQ_TEST_MARKS")
    if folder is None:
        return
    marks = Path(folder)
    (marks / f"{client_id}-{server_round}-{os.getpid()}").touch()
    deadline = time.monotonic() + _HELD_AT_MOST
    while (marks / f"hold-{client_id}-{server_round}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)


def client(context: ClientContext) -> HeldClient:
    """Make the client."""
    return HeldClient(context.client_id)


def server(context: ServerContext) -> FedAvg:
    """FedAvg over ``clients`` clients and ``size`` numbers, as the run's configuration says."""
    clients, size = int(context.run_config["clients"]), int(context.run_config.get("size", 100))
    return FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([np.ones(size, np.float32)]),
        on_fit_config_fn=lambda server_round: {"server_round": server_round},
    )
