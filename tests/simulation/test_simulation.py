"""Federations of simulated clients: made in Flower's ways, mistaken, and two thousand at once."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from flmq.client import Client, NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.common.errors import InvalidClientId
from flmq.observe.events import ClientOutcome, Outcome, PhaseOpened, RoundCounts
from flmq.server import ServerConfig
from flmq.server.strategy import FedAvg
from flmq.simulation import start_simulation
from flmq.simulation.app import InvalidSimulation, SimulatedClientsFailed
from tests.end_to_end.federation import Nudge, Watch, fed_avg, initial


def _fed_avg(**options: Any) -> FedAvg:
    """Flower's defaults: whoever is there takes part, and two suffice to begin."""
    return FedAvg(**{"fraction_evaluate": 0.0, "initial_parameters": initial(), **options})


def test_a_client_is_made_of_a_context_that_tells_its_partition() -> None:
    seen: dict[str, ClientContext] = {}

    def client_fn(context: ClientContext) -> Client:
        seen[context.client_id] = context
        return Nudge(context.client_id).to_client()

    watch = Watch()
    start_simulation(client_fn=client_fn, num_clients=3, strategy=fed_avg(3), observers=(watch,))
    assert watch.rounds()[0].fit == RoundCounts(asked=3, accepted=3)
    assert {cid: dict(context.node_config) for cid, context in seen.items()} == {
        str(i): {"partition-id": i, "num-partitions": 3} for i in range(3)
    }


def test_a_client_is_made_of_its_id_as_in_older_flower() -> None:
    made: list[str] = []

    def client_fn(cid: str) -> NumPyClient:
        made.append(cid)
        return Nudge(cid)

    history = start_simulation(
        client_fn=client_fn,
        clients_ids=["left", "right"],
        config=ServerConfig(num_rounds=2),
        strategy=fed_avg(2, fraction_evaluate=1.0),
    )
    assert [server_round for server_round, _ in history.losses_distributed] == [1, 2]
    # Made anew for each task: two rounds of two phases.
    assert sorted(made) == ["left"] * 4 + ["right"] * 4


def test_all_simulated_clients_are_known_before_the_first_round() -> None:
    """Whom the first round asks does not depend on how quickly they said hello."""

    def asked() -> list[tuple[str, ...]]:
        watch = Watch()
        start_simulation(
            client_fn=lambda context: Nudge(context.client_id),
            num_clients=40,
            strategy=_fed_avg(fraction_fit=0.25),
            config=ServerConfig(num_rounds=2),
            seed=3,
            observers=(watch,),
        )
        return [phase.asked for phase in watch.of(PhaseOpened)]

    first = asked()
    assert [len(clients) for clients in first] == [10, 10]
    assert asked() == first


def test_the_same_simulation_gives_the_same_bits_with_any_number_of_threads() -> None:
    models = set()
    histories = []
    for threads in (1, 2, 8):
        watch = Watch()
        history = start_simulation(
            client_fn=lambda context: Nudge(context.client_id),
            num_clients=10,
            strategy=_fed_avg(fraction_evaluate=0.5),
            config=ServerConfig(num_rounds=3),
            seed=1,
            threads=threads,
            observers=(watch,),
        )
        models.add(watch.model())
        histories.append(history)
    assert len(models) == 1
    assert histories[0] == histories[1] == histories[2]


def test_what_a_client_raises_is_its_failure_alone() -> None:
    class Broken(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            raise ArithmeticError("no gradient")

    def client_fn(context: ClientContext) -> NumPyClient:
        if context.client_id == "1":
            raise OSError("no data")
        return Broken() if context.client_id == "2" else Nudge(context.client_id)

    watch = Watch()
    strategy = fed_avg(4)
    start_simulation(client_fn=client_fn, num_clients=4, strategy=strategy, observers=(watch,))
    assert watch.rounds()[0].fit == RoundCounts(asked=4, accepted=2, failed=2)
    assert {
        o.client_id: o.reason for o in watch.of(ClientOutcome) if o.outcome is Outcome.FAILED
    } == {
        "1": "OSError: no data",
        "2": "ArithmeticError: no gradient",
    }


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({}, "one of the two"),
        ({"num_clients": 2, "clients_ids": ["a"]}, "one of the two"),
        ({"num_clients": 0}, "needs 1 or more"),
        ({"num_clients": -1}, "needs 1 or more"),
        ({"clients_ids": []}, "needs 1 or more"),
        ({"clients_ids": ["a", "b", "a"]}, "'a' is given 2 times"),
    ],
)
def test_contradictory_clients_are_refused(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSimulation, match=said):
        start_simulation(client_fn=lambda context: Nudge("a"), **arguments)


def test_an_id_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidClientId):
        start_simulation(client_fn=lambda context: Nudge("a"), clients_ids=["a", "b c"])


def test_an_error_of_the_strategy_ends_the_simulation_and_leaves_no_thread() -> None:
    class Wrong(Exception):
        pass

    def wrong(server_round: int) -> Config:
        raise Wrong

    before = set(threading.enumerate())
    with pytest.raises(Wrong):
        start_simulation(
            client_fn=lambda context: Nudge("a"),
            num_clients=2,
            strategy=fed_avg(2, on_fit_config_fn=wrong),
        )
    assert set(threading.enumerate()) == before


def test_two_thousand_clients_a_round_are_ordinary() -> None:
    """Two rounds of two thousand small clients; some 5 s on one slow processor."""
    model = [np.zeros((64, 10), np.float32), np.zeros(10, np.float32)]

    class Plus(NumPyClient):
        def __init__(self, number: int) -> None:
            self.number = number

        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            return [p + np.float32(self.number) for p in parameters], 1, {}

    watch = Watch()
    started = time.monotonic()
    start_simulation(
        client_fn=lambda context: Plus(int(context.client_id)),
        num_clients=2000,
        strategy=_fed_avg(initial_parameters=ndarrays_to_parameters(model)),
        config=ServerConfig(num_rounds=2),
        observers=(watch,),
    )
    seconds = time.monotonic() - started
    assert [r.fit for r in watch.rounds()] == [RoundCounts(asked=2000, accepted=2000)] * 2
    mean = np.float32(999.5 * 2)
    expected = ndarrays_to_parameters([m + mean for m in model])
    assert watch.model() == b"".join(expected.tensors)
    assert seconds < 60.0, f"{seconds:.1f} s: something has become quadratic"


@pytest.mark.parametrize("raised", [SystemExit(2), KeyboardInterrupt()])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_client_that_exits_is_a_failure_and_the_simulation_goes_on(
    raised: BaseException, threads: int
) -> None:
    class Exits(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            raise raised

    def client_fn(context: ClientContext) -> NumPyClient:
        return Exits() if context.client_id == "1" else Nudge(context.client_id)

    watch = Watch()
    start_simulation(
        client_fn=client_fn,
        num_clients=3,
        strategy=fed_avg(3),
        config=ServerConfig(num_rounds=2),
        threads=threads,
        observers=(watch,),
    )
    assert [r.fit for r in watch.rounds()] == [RoundCounts(asked=3, accepted=2, failed=1)] * 2
    reasons = {o.reason for o in watch.of(ClientOutcome) if o.outcome is Outcome.FAILED}
    assert reasons == {f"{type(raised).__name__}: {raised}".rstrip(": ")}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("where", ["TaskExecutor.do", "Worker._receive"])
def test_a_fault_that_ends_the_clients_ends_the_simulation(
    monkeypatch: pytest.MonkeyPatch, threads: int, where: str
) -> None:
    """Whichever thread it is on, and whether a round is open or clients are waited for."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a fault of flmq")

    module = {"TaskExecutor": "tasks.task_executor", "Worker": "serving.worker"}[
        where.partition(".")[0]
    ]
    monkeypatch.setattr(f"flmq.client.{module}.{where}", broken)
    before = set(threading.enumerate())
    with pytest.raises(SimulatedClientsFailed, match="ZeroDivisionError: a fault of flmq"):
        start_simulation(
            client_fn=lambda context: Nudge("a"),
            num_clients=2,
            strategy=fed_avg(2),
            threads=threads,
        )
    assert set(threading.enumerate()) == before
