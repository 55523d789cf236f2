"""``python -m benchmarks.digits``: what each strategy reaches on the digits.

Softmax regression (650 parameters), 11 clients, 50 rounds of 5 local epochs (batch 32, learning
rate 0.5); test accuracy after the last round, mean over seeds. Twice: labels dealt by
Dirichlet(0.1), so that most clients hold two or three digits; and labels dealt evenly while two of
the eleven are hostile and answer with five times their update, turned round. Asynchronous ones
take as many updates, with all clients busy.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from benchmarks.digits_clients import Hostile, LocalProxy, Partition, ScaffoldDigits, SoftmaxDigits
from flmq.client import NumPyClient
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.datasets.digits import NUM_CLASSES, NUM_FEATURES
from flmq.server import ServerConfig
from flmq.server import strategy as strategies
from flmq.server.client_manager import SimpleClientManager
from flmq.server.server import Server
from flmq.server.strategy import FedAvg, Strategy
from flmq.simulation import start_simulation

CLIENTS = 11
HOSTILE = 2
ROUNDS = 50


@dataclass(frozen=True, slots=True)
class Contender:
    """A strategy, and how it is made of the options that all share."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    around: dict[str, Any] | None = None
    """Options of a wrapper of this name around `FedAvg`."""

    def make(self, shared: dict[str, Any]) -> Strategy:
        kind: Callable[..., Strategy] = getattr(strategies, self.name)
        if self.around is not None:
            return kind(FedAvg(**shared), **self.around)
        return kind(**shared, **self.options)

    @property
    def told(self) -> str:
        """The options, as in a call."""
        return ", ".join(f"{k}={v}" for k, v in (self.around or self.options).items())


CONTENDERS = (
    Contender("FedAvg"),
    Contender("FedAvgM", {"server_momentum": 0.9}),
    Contender("FedAdagrad", {"eta": 0.1, "tau": 1e-3}),
    Contender("FedAdam", {"eta": 0.1, "tau": 1e-3}),
    Contender("FedYogi", {"eta": 0.1, "tau": 1e-3}),
    Contender("FedProx", {"proximal_mu": 0.1}),
    Contender("QFedAvg", {"q_param": 0.1, "qffl_learning_rate": 0.5, "loss_metric": "loss"}),
    Contender("SCAFFOLD", {"num_clients": CLIENTS}),
    Contender("FedNova"),
    Contender("FedMedian"),
    Contender("FedTrimmedAvg", {"beta": 0.2}),
    Contender("Krum", {"num_malicious_clients": HOSTILE}),
    Contender("MultiKrum", {"num_malicious_clients": HOSTILE, "num_clients_to_keep": 7}),
    Contender("Bulyan", {"num_malicious_clients": HOSTILE}),
    Contender(
        "DifferentialPrivacyServerSideFixedClipping",
        around={"noise_multiplier": 0.1, "clipping_norm": 5.0, "num_sampled_clients": CLIENTS},
    ),
    Contender("FedBuff", {"buffer_size": CLIENTS, "concurrency": CLIENTS}),
    Contender("FedAsync", {"concurrency": CLIENTS}),
)


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.digits", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many (default: 3)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these strategies alone")
    options = parser.parse_args()
    with threadpool_limits(1):  # the matrices are small
        _print_table(options.seeds, options.only)


def _print_table(seeds: int, only: list[str] | None) -> None:
    print("| strategy | Dirichlet(0.1) | two of eleven hostile |")
    print("|---|---|---|")
    for contender in CONTENDERS:
        if only and contender.name not in only:
            continue
        figures = [
            statistics.fmean(accuracy(contender, seed, hostile) for seed in range(seeds))
            for hostile in (False, True)
        ]
        told = f" ({contender.told})" if contender.told else ""
        print(f"| `{contender.name}`{told} | {figures[0]:.3f} | {figures[1]:.3f} |")
        sys.stdout.flush()


def accuracy(contender: Contender, seed: int, hostile: bool) -> float:
    """Return the test accuracy after a run."""
    data = Partition(CLIENTS, "iid" if hostile else "dirichlet", 0.1, seed)
    measured: list[float] = []

    def evaluate(server_round: int, model: NDArrays, config: Config) -> tuple[float, Metrics]:
        loss, right = data.test(model)
        measured.append(right)
        return loss, {"accuracy": right}

    shapes = ((NUM_FEATURES, NUM_CLASSES), (NUM_CLASSES,))
    strategy = contender.make(
        {
            "min_fit_clients": CLIENTS,
            "min_evaluate_clients": CLIENTS,
            "min_available_clients": CLIENTS,
            "fraction_evaluate": 0.0,
            "evaluate_fn": evaluate,
            "on_fit_config_fn": lambda server_round: {"server_round": server_round},
            "initial_parameters": ndarrays_to_parameters(
                [np.zeros(shape, np.float32) for shape in shapes]
            ),
        }
    )
    with tempfile.TemporaryDirectory() as folder:

        def client(index: int) -> NumPyClient:
            if contender.name == "SCAFFOLD":
                made: NumPyClient = ScaffoldDigits(data, index, Path(folder) / str(index))
            else:
                made = SoftmaxDigits(data, index)
            return Hostile(made) if hostile and index < HOSTILE else made

        clients = [client(index) for index in range(CLIENTS)]
        if isinstance(strategy, strategies.asynchronous.Asynchronous):
            start_simulation(
                client_fn=lambda context: clients[int(context.client_id)].to_client(),
                num_clients=CLIENTS,
                strategy=strategy,
                config=ServerConfig(num_rounds=ROUNDS * CLIENTS // strategy.buffer_size),
            )
        else:
            manager = SimpleClientManager(seed=seed)
            for index, each in enumerate(clients):
                manager.register(LocalProxy(str(index), each.to_client()))
            server = Server(client_manager=manager, strategy=strategy)
            server.set_max_workers(1)
            server.fit(ROUNDS, None)
    return measured[-1]


if __name__ == "__main__":
    main()
