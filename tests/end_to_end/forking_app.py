"""An app whose ``fit`` and ``evaluate_fn`` fork children that outlive them, as data loaders do."""

from __future__ import annotations

import os
import time
from pathlib import Path

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import FedAvg
from tests.end_to_end.federation import Nudge, initial

LIFETIME = 240.0
"""Seconds for which a child lives unless the test ends it."""
MARKS = "FLMQ_TEST_MARKS"


def fork_once(who: str) -> None:
    """Fork a child, the first time; and stay for as long as ``hold-WHO`` is there."""
    marks = Path(os.environ[MARKS])
    (marks / f"{who}-{os.getpid()}").touch()
    child = marks / f"child-of-{who}"
    if not child.exists():
        pid = os.fork()
        if pid == 0:
            time.sleep(LIFETIME)
            os._exit(0)
        child.write_text(str(pid))
    while (marks / f"hold-{who}").exists():
        time.sleep(0.02)


class Forking(Nudge):
    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        fork_once("client")
        return super().fit(parameters, config)


def client(context: ClientContext) -> NumPyClient:
    """Make the client."""
    return Forking(context.client_id)


def server() -> ServerAppComponents:
    """One client, two rounds; the server itself forks when it measures."""

    def evaluate(server_round: int, parameters: NDArrays, config: Config) -> tuple[float, Metrics]:
        if server_round == 1:
            fork_once("server")
        return 0.0, {}

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=1,
        min_available_clients=1,
        initial_parameters=initial(),
        evaluate_fn=evaluate,
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=2))
