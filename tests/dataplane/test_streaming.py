"""Aggregation as replies come, and for strategies that want to see them: the same bits."""

from __future__ import annotations

import copy
import gc
import pickle
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from flmq.common import FitRes, Parameters, parameters_to_ndarrays
from flmq.observe.events import RunEnded
from flmq.server.replies.spool import SpooledParameters
from flmq.server.server_config import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.server.strategy.streaming import StreamedResults
from tests.dataplane.looks import mean_of, trained
from tests.end_to_end.federation import Federation, Nudge, initial
from tests.transport.rigs import eventually

NUMBERS = 50_000
CLIENTS = ["a", "b", "c", "d"]
MODEL = initial(NUMBERS)


@pytest.fixture(autouse=True)
def spool(federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the servers of a test spool. After ``federation``, whose broker may be there too."""
    folder = tmp_path / "spool"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


class Looking(FedAvg):
    """Keeps what it gets, and averages it as its base class does."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_fit_clients=4, min_available_clients=4, **options
        )
        self.kept: list[Any] = []

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        self.kept = results
        return super().aggregate_fit(server_round, results, failures)


class Streaming(FedAvg):
    """Watches what its results are; with a function instead of a subclass's method."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            fraction_evaluate=0.0, min_fit_clients=4, min_available_clients=4, **options
        )
        self.weights: list[Any] = []
        self.fit_metrics_aggregation_fn = self._note

    def _note(self, metrics: Any) -> dict[str, Any]:
        self.weights = metrics
        return {"seen": len(metrics)}


def test_the_mean_as_it_is_is_taken_as_replies_come(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[Any] = []
    aggregate_fit = FedAvg.aggregate_fit

    def watching(self: Any, server_round: int, results: Any, failures: Any) -> Any:
        seen.append((type(results), [res.parameters.tensors for _, res in results]))
        return aggregate_fit(self, server_round, results, failures)

    monkeypatch.setattr(FedAvg, "aggregate_fit", watching)
    federation.serve(*CLIENTS)
    strategy = Streaming(initial_parameters=initial(NUMBERS))
    server = federation.run(strategy, rounds=2, timeout=None)
    history = server.history()
    assert seen == [(StreamedResults, [[], [], [], []])] * 2
    assert [weight for weight, _ in strategy.weights] == [Nudge(c).weight for c in CLIENTS]
    assert history.metrics_distributed_fit == {"seen": [(1, 4), (2, 4)]}
    assert server.model() == mean_of(CLIENTS, MODEL, rounds=2)


def test_a_strategy_of_ones_own_gets_the_replies_and_the_same_bits(
    federation: Federation, spool: Path
) -> None:
    federation.serve(*CLIENTS)
    strategy = Looking(initial_parameters=initial(NUMBERS))
    server = federation.run(strategy, rounds=2, timeout=None)
    server.history()
    assert server.model() == mean_of(CLIENTS, MODEL, rounds=2)
    assert [proxy.cid for proxy, _ in strategy.kept] == CLIENTS
    # The run is over, and what was kept of it can still be read.
    second = Parameters(_split(mean_of(CLIENTS, MODEL)), "numpy.ndarray")
    for proxy, res in strategy.kept:
        assert isinstance(res, FitRes)
        assert isinstance(res.parameters, SpooledParameters)
        assert res.parameters == trained(proxy.cid, second).parameters
        for each in (copy.deepcopy(res), pickle.loads(pickle.dumps(res))):
            assert each == res
            assert type(each.parameters) is Parameters
    assert len(list(spool.glob("*/*"))) == 4
    del res, each, proxy
    strategy.kept = []
    federation.servers = []
    del server
    eventually(lambda: gc.collect() >= 0 and list(spool.iterdir()) == [])


def _split(blob: bytes) -> list[bytes]:
    """The tensors of a model of this file, out of its bytes."""
    lengths = [len(tensor) for tensor in MODEL.tensors]
    assert sum(lengths) == len(blob)
    return [blob[: lengths[0]], blob[lengths[0] :]]


class Slow(Nudge):
    """Answers in an order of the test's."""

    seed = 0

    def fit(self, parameters: Any, config: Any) -> Any:
        time.sleep(random.Random(f"{self.seed}/{self.client_id}").random() * 0.3)
        return super().fit(parameters, config)


@pytest.mark.parametrize("seed", [1, 2])
def test_every_order_of_arrival_gives_the_same_bits(federation: Federation, seed: int) -> None:
    source = type("Seeded", (Slow,), {"seed": seed})
    federation.serve(*CLIENTS, source=lambda context: source(context.client_id))
    streamed = federation.run(
        Streaming(initial_parameters=initial(NUMBERS)), timeout=None, job="streamed"
    )
    looked = federation.run(
        Looking(initial_parameters=initial(NUMBERS)), timeout=None, job="looked"
    )
    assert streamed.model() == looked.model() == mean_of(CLIENTS, MODEL)


class _Best(Looking):
    """Takes one client's model as the new one: a view of its spooled reply."""

    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return results[2][1].parameters, {}


def test_one_clients_parameters_can_be_the_new_model(federation: Federation) -> None:
    federation.serve(*CLIENTS)
    server = federation.run(_Best(initial_parameters=initial(NUMBERS)), rounds=2, timeout=None)
    first = trained("c", MODEL).parameters
    assert server.model() == b"".join(trained("c", first).parameters.tensors)


class _Gives(Nudge):
    """Has initial parameters."""

    def get_parameters(self, config: Any) -> Any:
        return parameters_to_ndarrays(initial(NUMBERS))


def test_large_initial_parameters_of_a_client_are_there_to_the_end(federation: Federation) -> None:
    federation.serve("a", source=lambda context: _Gives(context.client_id))
    strategy = FedAvg(min_fit_clients=1, min_available_clients=1)
    server = federation.run(strategy, config=ServerConfig(0, None))
    server.history()
    ended = server.watch.wait_for(RunEnded)
    assert ended.parameters == MODEL
