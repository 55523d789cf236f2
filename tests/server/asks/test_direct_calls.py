"""A strategy that calls clients by itself: the calls survive a kill, and are not made twice."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.client.context import ClientContext
from flmq.common import (
    Config,
    FitIns,
    GetPropertiesIns,
    Metrics,
    NDArrays,
    Parameters,
    Scalar,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.server import ClientManager
from flmq.server.client_proxy import ClientProxy
from flmq.server.strategy import FedAvg
from tests.dying import Died
from tests.end_to_end.federation import Federation, Nudge, initial
from tests.transport.rigs import PATIENCE

CLIENTS = ("a", "b")
ROUNDS = 2
STEPS = ("configure", "aggregate")
SWITCHES: dict[str, str] = {}
"""What the strategy does besides: in which step it dies, or asks another question."""


class Asked:
    """Clients that count what they are asked."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.times: Counter[tuple[str, str]] = Counter()

    def client(self, context: ClientContext) -> Nudge:
        asked, name = self, context.client_id

        class Counting(Nudge):
            def get_properties(self, config: Config) -> dict[str, Scalar]:
                with asked.lock:
                    asked.times[name, f"properties {config}"] += 1
                return {"weight": self.weight}

            def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
                with asked.lock:
                    asked.times[name, f"fit {config}"] += 1
                return super().fit(parameters, config)

        return Counting(name)


class Calling(FedAvg):
    """Calls all clients, from threads, before it chooses and after they have trained."""

    def __init__(self) -> None:
        super().__init__(
            fraction_evaluate=0.0,
            min_fit_clients=2,
            min_available_clients=2,
            initial_parameters=initial(),
        )

    def configure_fit(
        self, server_round: int, parameters: Parameters, client_manager: ClientManager
    ) -> list[tuple[ClientProxy, FitIns]]:
        assert client_manager.wait_for(2, int(PATIENCE))
        clients = [client_manager.all()[name] for name in CLIENTS]
        weight = self._ask_all("configure", server_round, clients, parameters)
        chosen = super().configure_fit(server_round, parameters, client_manager)
        return [(client, FitIns(ins.parameters, {"weight": weight})) for client, ins in chosen]

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        model, metrics = super().aggregate_fit(server_round, results, failures)
        assert model is not None
        clients = sorted((client for client, _ in results), key=lambda client: client.cid)
        weight = self._ask_all("aggregate", server_round, clients, model)
        moved = [t * np.float32(1 + weight / 100) for t in parameters_to_ndarrays(model)]
        return ndarrays_to_parameters(moved), metrics

    def _ask_all(
        self, step: str, number: int, clients: list[ClientProxy], model: Parameters
    ) -> float:
        def ask(client: ClientProxy) -> float:
            said = 0.0
            for _ in range(2):  # the same question twice is two asks
                ins = GetPropertiesIns({"step": step, "round": number})
                res = client.get_properties(ins, None, number)
                said += float(res.properties["weight"])
            trained = client.fit(FitIns(model, {"step": step, "round": number}), None, number)
            return said + float(parameters_to_ndarrays(trained.parameters)[0].sum())

        with ThreadPoolExecutor(2) as pool:
            weight = sum(pool.map(ask, clients))
        if number == 2 and SWITCHES.get("dies in") == step:
            raise Died("killed")
        if number == 2 and SWITCHES.get("also") == step:
            clients[0].get_properties(GetPropertiesIns({"also": step}), None, number)
        return weight


@pytest.mark.parametrize("step", STEPS)
def test_calls_survive_a_kill_and_are_not_made_twice(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    asked, undisturbed = Asked(), Asked()
    federation.serve(*CLIENTS, source=asked.client)
    folder = tmp_path / "runs"
    monkeypatch.setitem(SWITCHES, "dies in", step)
    for _ in range(2):
        with pytest.raises(Died):
            federation.run(Calling(), ROUNDS, None, runs_dir=folder).history()
    monkeypatch.delitem(SWITCHES, "dies in")
    monkeypatch.setitem(SWITCHES, "also", step)
    model = federation.run(Calling(), ROUNDS, None, runs_dir=folder).model()
    monkeypatch.delitem(SWITCHES, "also")
    for running in federation.workers.values():
        running.stop()
    federation.serve(*CLIENTS, source=undisturbed.client)
    assert federation.run(Calling(), ROUNDS, None, job="other").model() == model  # no journal
    another = ("a", f"properties {{'also': '{step}'}}")
    assert asked.times.pop(another) == 1
    assert asked.times == undisturbed.times
    assert {n for (_, what), n in asked.times.items() if "properties" in what} == {2}
