"""An app for tests with real processes: its clients mark that they train, and can be held there.

``FLMQ_TEST_MARKS`` names a folder. A client writes ``<id>-<round>-<pid>`` when it begins to train,
and goes on once there is no ``hold-<id>-<round>``. A server that asks while it aggregates dies
there, once, where there is a ``die-<round>``.
"""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import (
    Config,
    EvaluateIns,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.server.client_proxy import ClientProxy
from flmq.server.context import ServerContext
from flmq.server.strategy import FedAvg
from tests.training import moved, wait_until

_HELD_AT_MOST = 120.0


class HeldClient(NumPyClient):
    """Adds what depends on its id and the round, in float32, so that order would show."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        server_round = int(config["server_round"])
        _mark_and_wait(self.client_id, server_round)
        model = moved(parameters, [*self.client_id.encode(), server_round])
        return model, 1 + sum(self.client_id.encode()) % 5, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(np.abs(parameters[0]).mean()), 1, {}


def _mark_and_wait(client_id: str, server_round: int) -> None:
    folder = os.environ.get("FLMQ_TEST_MARKS")
    if folder is None:
        return
    marks = Path(folder)
    (marks / f"{client_id}-{server_round}-{os.getpid()}").touch()
    hold = marks / f"hold-{client_id}-{server_round}"
    wait_until(lambda: not hold.exists(), _HELD_AT_MOST)


class Asking(FedAvg):
    """Scales the mean by what its first client says of its model."""

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        if parameters is None:
            return None, metrics
        client, _ = min(results, key=lambda result: result[0].cid)
        said = client.evaluate(EvaluateIns(parameters, {}), None, server_round)
        fatal = Path(os.environ["FLMQ_TEST_MARKS"]) / f"die-{server_round}"
        if fatal.exists():
            fatal.unlink()
            time.sleep(0.5)  # its client has the receipt
            os.kill(os.getpid(), signal.SIGKILL)
        scaled = [p * np.float32(1 + said.loss / 10) for p in parameters_to_ndarrays(parameters)]
        return ndarrays_to_parameters(scaled), metrics


def client(context: ClientContext) -> HeldClient:
    """Make the client."""
    return HeldClient(context.client_id)


class BrokenClient(NumPyClient):
    """Cannot train."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        raise ValueError("no data on this machine")


def broken(context: ClientContext) -> BrokenClient:
    """Make a client that cannot train."""
    return BrokenClient()


def server(context: ServerContext) -> FedAvg:
    """FedAvg over ``clients`` clients and a model of ``size``, of the run's configuration.

    With ``asks`` it asks a client of its own accord while it aggregates.
    """
    clients = int(context.run_config["clients"])
    size = int(context.run_config.get("size", 100))
    strategy = Asking if context.run_config.get("asks") else FedAvg
    return strategy(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=ndarrays_to_parameters([np.ones(size, np.float32)]),
        on_fit_config_fn=lambda server_round: {"server_round": server_round},
    )
