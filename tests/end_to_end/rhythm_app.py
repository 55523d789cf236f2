"""A server for tests: it selects by past failures, stops early, keeps the best, and is called back.

``FLMQ_TEST_TOLD`` names the file into which a callback writes what it is told.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays, Parameters, Scalar
from flmq.observe.events import RunEnded
from flmq.server import Callback, EarlyStopping, ServerAppComponents, ServerConfig
from flmq.server.criteria import NoRecentFailure
from flmq.server.strategy import FedAvg
from tests.end_to_end.federation import initial
from tests.training import moved

CLIENTS = ("a", "b", "c")
LOSSES = {1: 5.0, 2: 4.0, 3: 3.0, 4: 3.5, 5: 3.25}
"""The least is the third, and the patience is two rounds: it stops after the fifth."""


class Scheduled(NumPyClient):
    """Measures what is due in a round; client c fails in the first."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        server_round = int(config["server_round"])
        if (self.client_id, server_round) == ("c", 1):
            raise ValueError("not today")
        return moved(parameters, [*self.client_id.encode(), server_round]), 1, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return LOSSES[int(config["server_round"])], 1, {}


class Telling(Callback):
    """Writes what it is told into a file."""

    def _write(self, line: str) -> None:
        with Path(os.environ["FLMQ_TEST_TOLD"]).open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def on_run_begin(self, job: str, num_rounds: int, rounds_closed: int) -> None:
        self._write(f"begin {rounds_closed}")

    def on_round_end(
        self, server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]
    ) -> None:
        self._write(f"round {server_round} loss {metrics['loss']!r}")

    def on_run_end(self, ended: RunEnded) -> None:
        self._write(f"end {ended.rounds}")


def breaks(server_round: int, parameters: Parameters, metrics: Mapping[str, Scalar]) -> None:
    """Raise, as a callback that nobody tried."""
    raise ZeroDivisionError(f"in round {server_round}")


def client(context: ClientContext) -> NumPyClient:
    """Make a client."""
    return Scheduled(context.client_id)


def server() -> ServerAppComponents:
    """What a person would write."""

    def config(server_round: int) -> Config:
        return {"server_round": server_round}

    strategy = FedAvg(
        min_fit_clients=2,
        min_evaluate_clients=2,
        min_available_clients=3,
        initial_parameters=initial(),
        on_fit_config_fn=config,
        on_evaluate_config_fn=config,
        criterion=NoRecentFailure(rounds=2),
    )
    return ServerAppComponents(
        strategy=strategy,
        config=ServerConfig(
            num_rounds=10,
            round_timeout=lambda server_round: 60.0 if server_round == 1 else 30.0,
            early_stopping=EarlyStopping(patience=2),
        ),
        callbacks=[breaks, Telling()],
    )
