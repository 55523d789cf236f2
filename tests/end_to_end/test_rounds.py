"""Whole runs over both transports: the same bits, in whatever order and size replies come."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from flmq.client import NumPyClient
from flmq.client.context import ClientContext
from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
from flmq.observe.events import PhaseOpened, RoundCounts
from flmq.server import History
from flmq.testing import fast_retries
from flmq.transport import MODELS
from tests.end_to_end.federation import Federation, Nudge, RunningServer, fed_avg
from tests.transport.rigs import PATIENCE, MemoryRig

NAMES = ("a", "b", "c", "d", "e")


class Turns:
    """Lets clients answer in a chosen order, round after round."""

    def __init__(self, order: tuple[str, ...]) -> None:
        self._order = order
        self._turn = 0
        self._changed = threading.Condition()

    def wait(self, client_id: str) -> None:
        """Return when it is the client's turn; the next one's comes a moment later."""
        with self._changed:
            mine = lambda: self._order[self._turn % len(self._order)] == client_id  # noqa: E731
            assert self._changed.wait_for(mine, PATIENCE)

    def done(self) -> None:
        """Let the next one go."""
        with self._changed:
            self._turn += 1
            self._changed.notify_all()


def _in_turns(turns: Turns) -> Any:
    class InTurns(Nudge):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            turns.wait(self.client_id)
            result = super().fit(parameters, config)
            turns.done()
            return result

    return lambda context: InTurns(context.client_id)


def _run(federation: Federation, job: str = "job") -> RunningServer:
    strategy = fed_avg(len(NAMES), fraction_evaluate=1.0, fraction_fit=0.0, min_fit_clients=4)
    return federation.run(strategy, rounds=3, timeout=None, job=job)


@pytest.fixture(scope="module")
def undisturbed() -> Iterator[tuple[bytes, History]]:
    """Model and history of the run that all others must equal."""
    with fast_retries():
        rig = MemoryRig()
        federation = Federation(rig)
        federation.serve(*NAMES)
        server = _run(federation)
        yield server.model(), server.history()
        federation.close()
        rig.close()


def test_a_run_trains_evaluates_and_ends_with_its_history(
    federation: Federation, undisturbed: tuple[bytes, History]
) -> None:
    federation.serve(*NAMES)
    server = _run(federation)
    history = server.history()
    assert [server_round for server_round, _ in history.losses_distributed] == [1, 2, 3]
    assert set(history.metrics_distributed) == {"accuracy"}
    assert set(history.metrics_distributed_fit) == {"weight"}
    for closed in server.watch.rounds():
        assert closed.fit == RoundCounts(asked=4, accepted=4)
        assert closed.evaluate == RoundCounts(asked=5, accepted=5)
        assert closed.loss == dict(history.losses_distributed)[closed.server_round]
        assert closed.bytes_up > 4 * 2 * 128  # two tensors of each of four clients, with headers
        assert closed.bytes_down > 9 * 2 * 128
    assert (server.model(), history) == undisturbed
    # No model was large: nobody has made the stream.
    assert federation.rig.witness().inspect_queue(MODELS) is None
    # Another run with the same seed asks the same clients and has the same bits.
    again = _run(federation, "another")
    assert (again.model(), again.history()) == undisturbed
    phases = [[phase.asked for phase in s.watch.of(PhaseOpened)] for s in (server, again)]
    assert phases[0] == phases[1]


@pytest.mark.parametrize("order", [NAMES[:4], NAMES[3::-1], ("c", "a", "d", "b")])
def test_the_order_of_replies_changes_no_bit(
    memory_federation: Federation, order: tuple[str, ...]
) -> None:
    """All four take part in each round, and answer one after the other in the order given."""
    turns = Turns(order)
    memory_federation.serve(*NAMES[:4], source=_in_turns(turns))
    server = memory_federation.run(fed_avg(4), rounds=3, timeout=None)
    in_turns = server.model()
    for name in NAMES[:4]:
        memory_federation.workers[name].stop()
    memory_federation.serve(*NAMES[:4])
    assert memory_federation.run(fed_avg(4), rounds=3, job="free").model() == in_turns


def test_what_the_broker_reorders_delays_and_duplicates_changes_no_bit(
    memory_federation: Federation, undisturbed: tuple[bytes, History]
) -> None:
    assert isinstance(memory_federation.rig, MemoryRig)
    broker = memory_federation.rig.broker
    memory_federation.serve(*NAMES)
    broker.reorder(5)
    broker.delay(0.01)
    broker.duplicate(10_000)
    server = _run(memory_federation)
    assert server.model() == undisturbed[0]
    assert server.history() == undisturbed[1]


class Large(NumPyClient):
    """Adds one to a model of several chunks."""

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        return [tensor + 1 for tensor in parameters], 1, {}

    def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
        return float(parameters[0][-1]), 1, {}


@pytest.mark.parametrize("megabytes", [5, 20])
def test_models_larger_than_a_message_go_both_ways(federation: Federation, megabytes: int) -> None:
    size = megabytes * 250_000
    start = np.arange(size, dtype=np.float32)
    federation.serve("a", "b", source=lambda context: Large())
    model: list[Any] = [start, np.zeros(3)]
    strategy = fed_avg(2, fraction_evaluate=1.0, initial_parameters=ndarrays_to_parameters(model))
    server = federation.run(strategy, rounds=2)
    history = server.history()
    expected: list[Any] = [start + 2, np.full(3, 2.0)]
    assert server.watch.model() == b"".join(ndarrays_to_parameters(expected).tensors)
    assert history.losses_distributed == [(1, float(start[-1] + 1)), (2, float(start[-1] + 2))]
    for closed in server.watch.rounds():
        assert closed.bytes_up >= 2 * 4 * size
        assert closed.bytes_down >= 4 * size


@pytest.mark.parametrize("limit", [200_000, 1_000_003])
def test_chunks_fit_a_broker_that_takes_small_messages_alone(
    memory_federation: Federation, limit: int
) -> None:
    """The same bits, whatever the size of the chunks of models and replies."""
    assert isinstance(memory_federation.rig, MemoryRig)
    start = np.arange(700_000, dtype=np.float32)
    memory_federation.serve("a", "b", source=lambda context: Large())
    models = []
    for index, max_bytes in enumerate((1 << 24, limit)):
        memory_federation.rig.broker.max_message_size = max_bytes
        strategy = fed_avg(
            2, fraction_evaluate=1.0, initial_parameters=ndarrays_to_parameters([start])
        )
        server = memory_federation.run(strategy, rounds=2, job=f"job-{index}")
        assert len(server.history().losses_distributed) == 2
        assert [closed.fit.accepted for closed in server.watch.rounds()] == [2, 2]
        models.append(server.watch.model())
        for name in "ab":
            memory_federation.workers[name].stop()
        memory_federation.serve("a", "b", source=lambda context: Large())
    assert models[0] == models[1]


def test_two_servers_with_different_jobs_share_their_clients(federation: Federation) -> None:
    seen: set[tuple[str, str]] = set()

    def source(context: ClientContext) -> Nudge:
        seen.add((context.job, context.client_id))
        return Nudge(context.client_id)

    federation.serve(*NAMES, source=source)
    servers = [_run(federation, job) for job in ("one", "two")]
    assert servers[0].model() == servers[1].model()
    assert servers[0].history() == servers[1].history()
    assert seen == {(job, name) for job in ("one", "two") for name in NAMES}


def test_every_dtype_comes_back_as_it_was_sent(federation: Federation) -> None:
    class Same(NumPyClient):
        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            return parameters, 3, {"bytes": b"\0", "text": "é", "flag": True, "int": 2**62}

    model: list[Any] = [
        np.array([2**53 + 1, -3], np.int64),
        np.array([[0.1]], np.float16),
        np.array(7.5, np.float64),
        np.zeros((0, 4), np.float32),
    ]
    parameters = ndarrays_to_parameters(model)
    federation.serve("a", "b", source=lambda context: Same())
    server = federation.run(fed_avg(2, initial_parameters=parameters))
    assert server.model() == b"".join(parameters.tensors)
