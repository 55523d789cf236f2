"""What rounds of `start_simulation` take: seconds, CPU and memory by the number of clients.

Each line is a process of its own. Clients train nothing: `fit` adds a number to what it was given.
A round's time goes from one choice of clients to the next; the first round is a warm-up. "to the
first" is what there is before it: all clients made, proven to be there, and chosen from. The ratio
at the end is time a client and round of the largest line over that of the line before.

Run: ``python -m benchmarks.simulation [--clients N ...] [--model 10KB] [--rounds N]
[--fraction F] [--threads N] [--max-workers N]``
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

import numpy as np

from benchmarks.cells import model_bytes, size_name
from benchmarks.contestants.stage import end_with_parent, memory
from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, FitIns, Metrics, NDArrays, Parameters, ndarrays_to_parameters
from flmq.server import ClientManager, ServerConfig
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation

CLIENTS = (100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Figures:
    """What one process found, in seconds and bytes."""

    to_first: float
    rounds: list[float]
    cpu: list[float]
    peak: int
    accepted: int
    """Replies that counted, in all."""


class Plus(NumPyClient):
    """Adds its number to all of the model."""

    def __init__(self, number: int) -> None:
        """Be client ``number``."""
        self.number = number

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        """Train nothing."""
        return [p + np.float32(self.number) for p in parameters], 1, {}


def make_client(context: ClientContext) -> NumPyClient:
    """Make a client, in whichever process."""
    return Plus(int(context.client_id))


class Timed(FedAvg):
    """Notes when clients are chosen, and how many replied."""

    def __init__(self, **options: Any) -> None:
        """Take the options of `FedAvg`."""
        super().__init__(**options)
        self.walls: list[float] = []
        self.cpus: list[float] = []
        self.accepted = 0

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        """Choose clients as `FedAvg` does."""
        chosen = super().configure_fit(server_round, parameters, client_manager)
        self.note()
        return chosen

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        """Aggregate as `FedAvg` does."""
        self.accepted += len(results)
        return super().aggregate_fit(server_round, results, failures)

    def note(self) -> None:
        """Note the time, and the CPU time of this process and of those that have ended."""
        self.walls.append(time.monotonic())
        self.cpus.append(sum(os.times()[:4]))


def measure(options: argparse.Namespace, clients: int) -> Figures:
    """Run one simulation in this process."""
    model = [np.zeros(options.model // 4, np.float32)]
    chosen = max(1, round(clients * options.fraction))
    strategy = Timed(
        fraction_fit=options.fraction,
        min_fit_clients=chosen,
        min_available_clients=clients,
        fraction_evaluate=0.0,
        initial_parameters=ndarrays_to_parameters(model),
    )
    started = time.monotonic()
    start_simulation(
        client_fn=make_client,
        num_clients=clients,
        strategy=strategy,
        config=ServerConfig(num_rounds=options.rounds + 2),
        seed=1,
        threads=options.threads,
        max_workers=options.max_workers,
    )
    strategy.note()
    rounds, cpu = _steps(strategy.walls), _steps(strategy.cpus)
    # Without the warm-up, and without the last round, in which the end of the run is.
    return Figures(
        strategy.walls[0] - started, rounds[1:-1], cpu[1:-1], memory("VmHWM"), strategy.accepted
    )


def _steps(times: list[float]) -> list[float]:
    return [after - before for before, after in itertools.pairwise(times)]


def main() -> None:
    """Measure what the options name, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    parser.add_argument("--clients", nargs="+", type=int, default=list(CLIENTS))
    parser.add_argument("--model", type=model_bytes, default=10_000, metavar="SIZE")
    parser.add_argument("--rounds", type=int, default=3, help="that count (default: 3)")
    parser.add_argument("--fraction", type=float, default=1.0, help="of clients asked a round")
    parser.add_argument("--threads", type=int, help="default: one a processor")
    parser.add_argument("--max-workers", type=int, help="processes, in place of threads")
    parser.add_argument("--here", action="store_true", help="in this process; prints JSON")
    options = parser.parse_args()
    if options.here:
        end_with_parent()
        logging.getLogger("flmq").setLevel(logging.WARNING)
        for clients in options.clients:
            print(json.dumps(asdict(measure(options, clients))))
        return
    print("\n".join(_table(options)))


def _table(options: argparse.Namespace) -> list[str]:
    name = size_name(options.model)
    heads = [f"clients, {name}", "asked a round", "to the first, s", "a round, s"]
    heads += ["CPU s", "ms a client", "peak RSS, MB"]
    lines = [f"| {' | '.join(heads)} |", "|---:" * len(heads) + "|"]
    each: list[float] = []
    for clients in options.clients:
        print(f"simulation of {clients} clients", file=sys.stderr, flush=True)
        found = _in_a_process(options, clients)
        asked = max(1, round(clients * options.fraction))
        if found.accepted != asked * (options.rounds + 2):
            sys.exit(f"{found.accepted} replies of {asked * (options.rounds + 2)} counted")
        seconds, cpu = median(found.rounds), median(found.cpu)
        each.append(seconds / asked)
        lines.append(
            f"| {clients:,} | {asked:,} | {found.to_first:.2f} | {seconds:.2f} | {cpu:.2f} | "
            f"{seconds / asked * 1000:.2f} | {found.peak / 1e6:.0f} |"
        )
    if len(each) > 1:
        last, before = options.clients[-1], options.clients[-2]
        ratio = each[-1] / each[-2]
        lines += ["", f"Time a client a round, {last:,} / {before:,}: {ratio:.2f} (goal 1.2)"]
    return lines


def _in_a_process(options: argparse.Namespace, clients: int) -> Figures:
    command = [sys.executable, "-m", "benchmarks.simulation", "--here", f"--clients={clients}"]
    command += [f"--model={options.model // 1000}KB", f"--rounds={options.rounds}"]
    command += [f"--fraction={options.fraction}"]
    command += [f"--threads={options.threads}"] if options.threads else []
    command += [f"--max-workers={options.max_workers}"] if options.max_workers else []
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return Figures(**json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
