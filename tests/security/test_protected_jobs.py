"""What a plain job can do, a protected one can: with the same bits, over both transports."""

from __future__ import annotations

from typing import Any

import numpy as np

from flmq.client import NumPyClient
from flmq.client.options import WorkerOptions
from flmq.client.secure.keys import ClientKeys
from flmq.common import (
    Config,
    FitIns,
    Metrics,
    NDArrays,
    Parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.server import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedBuff
from flmq.testing import fast_retries
from flmq.transport import own_models_queue
from tests.end_to_end.federation import Federation, Keeping, RunningServer, fed_avg
from tests.end_to_end.fixtures import rig
from tests.security.federations import CLIENTS, identity, job_keys
from tests.transport.rigs import MemoryRig, Rig

__all__ = ["rig"]

LARGE = 60_000


class Everything(NumPyClient):
    """Gives a first model, trains, evaluates."""

    def get_parameters(self, config: Config) -> NDArrays:
        return [np.arange(LARGE, dtype=np.float32)]

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return [tensor * np.float32(0.9) + 1 for tensor in parameters], 3, {"seen": 1.0}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(parameters[0].sum()), 2, {}


class OwnModels(Keeping):
    """Sends each client a model of its own, large enough to go in chunks, and asks directly."""

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        asked = super().configure_fit(server_round, parameters, client_manager)
        first = parameters_to_ndarrays(parameters)[0]
        return [
            (proxy, FitIns(ndarrays_to_parameters([first + ord(proxy.cid)]), ins.config))
            for proxy, ins in asked
        ]


def _run(rig: Rig, strategy: Any, *, protected: bool, rounds: int = 2) -> RunningServer:
    federation = Federation(rig)
    for name in CLIENTS:
        keys = ClientKeys({name: identity(name)}, (identity("server").public,))
        options = WorkerOptions(heartbeat=1.0, keys=keys if protected else None)
        federation.serve(name, source=lambda context: Everything(), options=options)
    server = federation.run(strategy, rounds, protection=job_keys() if protected else None)
    server.history()
    federation.close()
    return server


def _in_the_clear(strategy: Any) -> RunningServer:
    with fast_retries():
        plain = MemoryRig()
        server = _run(plain, strategy, protected=False)
        plain.close()
    return server


def test_a_first_model_of_a_client_training_and_evaluation(rig: Rig) -> None:
    def strategy() -> Any:
        return fed_avg(3, initial_parameters=None, fraction_evaluate=1.0)

    server, plain = _run(rig, strategy(), protected=True), _in_the_clear(strategy())
    assert server.model() == plain.model()
    assert server.history() == plain.history()


def test_models_of_ones_own(rig: Rig) -> None:
    def strategy() -> Any:
        start = ndarrays_to_parameters([np.arange(LARGE, dtype=np.float32)])
        return OwnModels(
            fraction_evaluate=0.0,
            min_fit_clients=3,
            min_available_clients=3,
            initial_parameters=start,
        )

    server, plain = _run(rig, strategy(), protected=True), _in_the_clear(strategy())
    assert server.model() == plain.model()
    assert rig.witness().inspect_queue(own_models_queue("a")) is not None


def test_a_run_without_rounds(rig: Rig) -> None:
    start = ndarrays_to_parameters([np.arange(LARGE, dtype=np.float32)])
    strategy = FedBuff(buffer_size=2, concurrency=3, initial_parameters=start)
    server = _run(rig, strategy, protected=True, rounds=3)
    assert [closed.fit.rejected for closed in server.watch.rounds()] == [0, 0, 0]
    assert server.model() != b"".join(start.tensors)
