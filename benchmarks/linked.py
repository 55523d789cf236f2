"""The processes that ``python -m benchmarks links`` watches: a server, and a site's clients in one.

Each prints what happens, a line of JSON each, and is told on its standard input to go on. A client
gives back what it was sent but for 64 numbers, which it moves by its own.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
from typing import Any

from benchmarks.contestants.model import make_model
from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.client.options import WorkerOptions
from flmq.client.serving.worker import Worker
from flmq.common import Config, Metrics, NDArrays, Parameters, ndarrays_to_parameters
from flmq.common.typing import Scalar
from flmq.server import ServerConfig, start_server
from flmq.server.client_manager import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedAvg
from flmq.transport import open_transport
from flmq.wire import refer

_JOB = "links"
_HEARTBEAT = 5.0
_GO = "go"


class _Server(FedAvg):
    """Plays a round when it is told to, and says what it took and what it came to."""

    _began = 0.0

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, Any]]:
        asked = super().configure_fit(server_round, parameters, client_manager)
        _tell("ready", round=server_round)
        _hear()
        self._began = time.monotonic()
        return asked

    def evaluate(
        self, server_round: int, parameters: Parameters
    ) -> tuple[float, dict[str, Scalar]] | None:
        if server_round:
            seconds = time.monotonic() - self._began
            _tell("aggregated", seconds=seconds, digest=refer(parameters).digest)
            _hear()
        return None


def serve(options: argparse.Namespace) -> None:
    """Run the server."""
    strategy = _Server(
        fraction_evaluate=0.0,
        min_fit_clients=options.clients,
        min_available_clients=options.clients,
        initial_parameters=ndarrays_to_parameters(make_model(options.model_bytes)),
    )
    start_server(
        strategy=strategy,
        config=ServerConfig(num_rounds=options.rounds),
        job=_JOB,
        runs=options.runs,
    )


class _Client(NumPyClient):
    """Says that it has the model, and gives it back when all have it."""

    def __init__(self, number: int, gates: _Gates) -> None:
        self._number = number
        self._gates = gates

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self._gates.wait()
        moved = parameters[-1] + parameters[-1].dtype.type(10.0 ** -(self._number % 4))
        return [*parameters[:-1], moved], 1 + self._number % 7, {}


class _Gates:
    """Holds all clients of a round until the last has its model and the benchmark has counted."""

    def __init__(self, clients: int) -> None:
        self._barrier = threading.Barrier(clients, self._all_have_it)

    def wait(self) -> None:
        self._barrier.wait()

    def _all_have_it(self) -> None:
        _tell("training")
        _hear()


def work(options: argparse.Namespace) -> None:
    """Serve all clients of the site."""
    gates = _Gates(options.clients)
    clients: dict[str, dict[str, Scalar]] = {
        f"c{number:03d}": {} for number in range(options.clients)
    }
    worker_options = WorkerOptions(
        site=os.environ["FLMQ_SITE"], heartbeat=_HEARTBEAT, threads=options.clients
    )

    def client(context: ClientContext) -> _Client:
        return _Client(int(context.client_id[1:]), gates)

    with open_transport(os.environ["FLMQ_BROKER_URL"], name="flmq clients") as transport:
        worker = Worker(transport, client, clients, worker_options)
        signal.signal(signal.SIGTERM, lambda number, frame: worker.stop())
        worker.run()


def _tell(what: str, **figures: float | str) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)


def _hear() -> None:
    if sys.stdin.readline().strip() != _GO:
        # The benchmark is gone.
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("server", "clients"))
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--model-bytes", type=int, default=1_000_000)
    parser.add_argument("--runs", default="runs")
    options = parser.parse_args()
    {"server": serve, "clients": work}[options.what](options)


if __name__ == "__main__":
    main()
