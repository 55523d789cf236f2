"""The federation that is disturbed: tiny, seeded, and a witness of every training.

The commands run it as ``program.py:server`` and ``program.py:client``. What a client gives back is
a function of its id, the round and the model; each training it begins and ends is a line in a file.
"""

from __future__ import annotations

import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Any, cast

import numpy as np

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import (
    Config,
    FitRes,
    Metrics,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.crashpoints import crash_point
from flmq.server import ServerAppComponents, ServerConfig
from flmq.server.client_proxy import ClientProxy
from flmq.server.context import ServerContext
from flmq.server.strategy import AllReplies, Combine, Combined, FedAvg, FedBuff, coordinate_wise
from tests.training import moved, wait_until

__all__ = [
    "BUFFER_SIZE",
    "DIARY",
    "FORKS",
    "GATE",
    "TRAINING_SECONDS",
    "Variant",
    "client",
    "parts",
    "server",
]

DIARY = "CHAOS_DIARY"
"""Variable that names the file with a line for each training begun and ended."""
GATE = "CHAOS_GATE"
"""Variable that names a file: no training ends before it is there."""
FORKS = "CHAOS_FORKS"
"""Variable that has each fit leave a child behind; names a file that is there when it may end."""
TRAINING_SECONDS = "CHAOS_TRAINING_SECONDS"
BUFFER_SIZE = 2
"""Updates that make a step of the variant without rounds."""
ROUND_TIMEOUT = 240.0
"""Seconds: so long that no disturbance decides who is in a closing set."""


class Variant(Enum):
    """What kind of job is disturbed."""

    PLAIN = "plain"
    """A small model, which rides in its tasks; replies are summed as they come."""
    LARGE = "large"
    """2 MB: published to the stream in chunks, replies in chunks too."""
    SAMPLED = "sampled"
    """One client fewer is asked than there are: who, the job's seed says; whole replies."""
    STATEFUL = "stateful"
    """Server momentum and a random generator in the strategy's state; replies are summed."""
    MEDIAN = "median"
    """200 KB, and a strategy that needs every reply, read from files in blocks."""
    DISKLESS = "diskless"
    """Clients without a spool (``--ack result``), whose trainings may repeat."""
    BUFFERED = "buffered"
    """Without rounds, by FedBuff; 160 KB, so that the versions at work are files."""

    @property
    def model_size(self) -> int:
        """Numbers in the model, float32."""
        sizes = {Variant.LARGE: 500_000, Variant.MEDIAN: 50_000, Variant.BUFFERED: 40_000}
        return sizes.get(self, 3_000)

    def asked(self, clients: int) -> int:
        """How many of ``clients`` each phase asks."""
        return clients - 1 if self is Variant.SAMPLED else clients


class Learner(NumPyClient):
    """Moves the model by noise of its own."""

    def __init__(self, context: ClientContext) -> None:
        self.client_id = context.client_id
        self.number = sum(context.client_id.encode())

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        server_round = cast(int, config["round"])
        # Without rounds a client may be asked twice before a step: by its number each ask is one.
        with _in_diary(self.client_id, "fit", cast(int, config.get("ask", server_round))):
            # Powers of ten apart, so that the order of a naive sum would show.
            scale = 10.0 ** -(self.number % 4)
            model = moved(parameters, [self.number, server_round], scale)
        return model, 10 + self.number % 7, {"norm": float(np.linalg.norm(model[0]))}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        server_round = cast(int, config["round"])
        with _in_diary(self.client_id, "evaluate", server_round):
            loss = float(np.abs(parameters[0] - np.float32(self.number % 5)).mean())
        return loss, 5 + self.number % 3, {"accuracy": 1.0 / (1.0 + loss)}


@contextmanager
def _in_diary(client_id: str, phase: str, server_round: int) -> Iterator[None]:
    """Note that a training begins and, unless it is killed, that it ends."""
    _note(f"begin {client_id} {phase} {server_round} {os.getpid()}")
    if phase == "fit":
        _leave_a_child()
    crash_point("program.training")
    time.sleep(float(os.environ.get(TRAINING_SECONDS, "0")))
    if GATE in os.environ:
        wait_until(Path(os.environ[GATE]).exists, math.inf)
    yield
    _note(f"end {client_id} {phase} {server_round} {os.getpid()}")


def _leave_a_child() -> None:
    """Fork, as data loaders do; the child holds what we have open until the run is over."""
    over = os.environ.get(FORKS)
    if over is None or os.fork() != 0:
        return
    wait_until(Path(over).exists, ROUND_TIMEOUT)
    os._exit(0)


def _note(line: str) -> None:
    path = os.environ.get(DIARY)
    if path:
        # One write to the end of the file: lines of several processes do not mix.
        with Path(path).open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())


class Momentum(FedAvg):
    """FedAvg with momentum on the server, and noise from a generator that must go on as it was."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.velocity: NDArrays = []
        self.rng = np.random.default_rng(5)

    def update(self, server_round: int, parameters: Parameters, combined: Combined) -> Parameters:
        old = parameters_to_ndarrays(parameters)
        before = self.velocity or [np.zeros_like(tensor) for tensor in old]
        self.velocity = [
            np.float32(0.7) * v + (mean - x)
            for v, mean, x in zip(before, combined, old, strict=True)
        ]
        noisy = [
            x + v + np.float32(1e-3) * self.rng.standard_normal(x.shape, dtype=np.float32)
            for x, v in zip(old, self.velocity, strict=True)
        ]
        return ndarrays_to_parameters(noisy)

    def state_dict(self) -> Mapping[str, Any]:
        return {"velocity": self.velocity, "rng": self.rng}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.velocity, self.rng = state["velocity"], state["rng"]


class Median(FedAvg):
    """The median of the clients' numbers, one by one, read from the replies' files in blocks."""

    def combine(self, server_round: int, parameters: Parameters) -> Combine:
        return AllReplies(coordinate_wise(lambda values: np.median(values, axis=0), 1 << 16))


class Counted(FedAvg):
    """FedAvg in the way of Flower's programs, which is given whole replies."""

    def aggregate_fit(
        self,
        server_round: int,
        results: list[tuple[ClientProxy, FitRes]],
        failures: list[tuple[ClientProxy, FitRes] | BaseException],
    ) -> tuple[Parameters | None, Metrics]:
        parameters, metrics = super().aggregate_fit(server_round, results, failures)
        tensors = sum(len(res.parameters.tensors) for _, res in results)
        return parameters, {**metrics, "tensors": tensors}


_STRATEGIES: dict[Variant, type[FedAvg]] = {
    Variant.SAMPLED: Counted,
    Variant.STATEFUL: Momentum,
    Variant.MEDIAN: Median,
}


def _config(server_round: int) -> Config:
    return {"round": server_round}


def _ask_config(server_round: int) -> Config:
    return {"round": server_round, "ask": secrets.randbits(40)}


def _mean_accuracy(metrics: list[tuple[int, Metrics]]) -> Metrics:
    total = sum(examples for examples, _ in metrics)
    return {"accuracy": sum(n * cast(float, m["accuracy"]) for n, m in metrics) / total}


def parts(variant: Variant, clients: int, rounds: int) -> ServerAppComponents:
    """A job over all of ``clients``, who must be there before anybody is asked."""
    rng = np.random.default_rng(1)
    asked = variant.asked(clients)
    options: dict[str, Any] = {
        "fraction_evaluate": 0.1,
        "min_evaluate_clients": asked,
        "min_available_clients": clients,
        "on_evaluate_config_fn": _config,
        "evaluate_metrics_aggregation_fn": _mean_accuracy,
        "initial_parameters": ndarrays_to_parameters(
            [
                rng.standard_normal(variant.model_size, dtype=np.float32),
                rng.standard_normal((2, 3), dtype=np.float32),
            ]
        ),
    }
    if variant is Variant.BUFFERED:
        options |= {"buffer_size": BUFFER_SIZE, "evaluate_every": 2}
        strategy: FedAvg = FedBuff(on_fit_config_fn=_ask_config, **options)
    else:
        options |= {"fraction_fit": 0.0, "min_fit_clients": asked, "on_fit_config_fn": _config}
        strategy = _STRATEGIES.get(variant, FedAvg)(**options)
    return ServerAppComponents(strategy=strategy, config=ServerConfig(rounds, ROUND_TIMEOUT))


def server(context: ServerContext) -> ServerAppComponents:
    """What ``flmq server`` runs; ``-c variant=... -c clients=... -c rounds=...`` choose it."""
    config = context.run_config
    return parts(
        Variant(str(config["variant"])), cast(int, config["clients"]), cast(int, config["rounds"])
    )


def client(context: ClientContext) -> Learner:
    """What ``flmq client`` runs."""
    return Learner(context)
