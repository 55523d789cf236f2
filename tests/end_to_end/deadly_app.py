"""An app whose client ``bad`` dies in its training of the first round, whoever begins it."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import cast

from flmq.client import ClientContext, NumPyClient
from flmq.common import Config, Metrics, NDArrays
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.strategy import FedAvg
from tests.end_to_end.federation import Nudge, initial

MARKS = "FLMQ_TEST_MARKS"


class Deadly(Nudge):
    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        server_round = cast(int, config["round"])
        if self.client_id == "bad":
            (Path(os.environ[MARKS]) / f"bad-{server_round}-{os.getpid()}").touch()
            if server_round == 1:
                os.kill(os.getpid(), signal.SIGKILL)  # as the kernel does, out of memory
        return super().fit(parameters, config)


def client(context: ClientContext) -> NumPyClient:
    """Make the client."""
    return Deadly(context.client_id)


def server() -> ServerAppComponents:
    """Two clients, two rounds, without a deadline: only a report ends the first."""
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=2,
        min_available_clients=2,
        initial_parameters=initial(),
        on_fit_config_fn=lambda server_round: {"round": server_round},
    )
    return ServerAppComponents(strategy=strategy, config=ServerConfig(num_rounds=2))
