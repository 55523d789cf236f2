"""The processes that ``python -m benchmarks.scale`` watches: one server, and all clients in one.

A client answers at once, with what it was sent but for its first number: what is measured is what
a client costs everybody else. Each process prints what happens, a line of JSON each.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time

import numpy as np

from benchmarks.meters import cpu_seconds, resident_memory
from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.client.options import WorkerOptions
from flmq.client.serving.worker import Worker
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.common.typing import Scalar
from flmq.observe.events import ClientOutcome, PhaseClosed, PhaseOpened, RunEvent, RunStarted
from flmq.round import Outcome
from flmq.server import ServerConfig, start_server
from flmq.server.strategy import FedAvg
from flmq.transport import open_transport

_JOB = "scale"
_THREADS = 16
"""Tasks at a time: each waits until the broker has confirmed its reply."""


class Echo(NumPyClient):
    """Answers at once."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        moved = parameters[0].copy()
        moved[0] += 1.0
        return [moved, *parameters[1:]], 1, {"loss": 0.5}


def client_ids(count: int) -> list[str]:
    """Return the ids of so many clients."""
    return [f"c{number:06d}" for number in range(count)]


def serve(options: argparse.Namespace) -> None:
    """Run the server, and say what a round took."""
    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=options.clients,
        min_available_clients=options.clients,
        initial_parameters=ndarrays_to_parameters([np.zeros(options.numbers, np.float32)]),
    )
    start_server(
        strategy=strategy,
        config=ServerConfig(num_rounds=options.rounds),
        job=_JOB,
        runs=options.runs,
        observers=[_Teller(options.die_after, options.going_on_at)],
    )


class _Teller:
    """Prints what happens, and ends the process in the middle of the second round if asked to."""

    def __init__(self, die_after: int, going_on_at: int) -> None:
        self._die_after = die_after
        self._going_on_at = going_on_at
        self._answered = 0

    def __call__(self, event: RunEvent) -> None:
        match event:
            case RunStarted():
                _tell("started")
            case PhaseOpened():
                self._answered = 0
                _tell("opened", round=event.server_round, asked=len(event.asked))
            case ClientOutcome(outcome=Outcome.ACCEPTED):
                self._answered += 1
                if event.server_round == 2 and self._answered == self._die_after:
                    os.kill(os.getpid(), signal.SIGKILL)
                if self._answered == self._going_on_at:
                    _tell("going on")
            case PhaseClosed():
                _tell(
                    "closed",
                    round=event.server_round,
                    accepted=event.counts.accepted,
                    duplicate=event.counts.duplicate,
                    seconds=event.seconds,
                )


def work(options: argparse.Namespace) -> None:
    """Serve all clients."""
    clients: dict[str, dict[str, Scalar]] = {each: {} for each in client_ids(options.clients)}
    worker_options = WorkerOptions(heartbeat=60.0, max_deaths=0, threads=_THREADS)

    def client(context: ClientContext) -> Echo:
        return Echo()

    with open_transport(os.environ["FLMQ_BROKER_URL"], name="flmq clients") as transport:
        worker = Worker(transport, client, clients, worker_options)
        signal.signal(signal.SIGTERM, lambda number, frame: worker.stop())
        worker.run()


def _tell(what: str, **figures: float) -> None:
    me = os.getpid()
    about = {"at": time.time(), "cpu": cpu_seconds([me]), "rss": resident_memory(me)}
    print(json.dumps({"what": what, **about, **figures}), flush=True)


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("server", "clients"))
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--numbers", type=int, default=2500, help="of the model, float32")
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--die-after", type=int, default=0, help="replies to the second round")
    parser.add_argument("--going-on-at", type=int, default=0, help="replies at which to say so")
    options = parser.parse_args()
    {"server": serve, "clients": work}[options.what](options)


if __name__ == "__main__":
    main()
