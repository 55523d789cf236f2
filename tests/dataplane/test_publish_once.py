"""A model crosses to the broker once a round, and to each worker once."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from flmq.client.models.reader import ModelReader
from flmq.client.serving.worker import WorkerOptions
from flmq.common import FitIns, Parameters, ndarrays_to_parameters
from flmq.common.phase import Phase
from flmq.observe.events import PhaseClosed
from flmq.server.strategy import FedAvg
from tests.dataplane.looks import published
from tests.end_to_end.federation import Federation, fed_avg, initial

NUMBERS = 800_000
"""A model of 3.2 MB: four chunks."""


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each model was read from the stream."""
    counted: Counter[str] = Counter()
    read = ModelReader._read

    def counting(self: ModelReader, ref: Any, *args: Any) -> memoryview:
        counted[ref.digest] += 1
        return read(self, ref, *args)

    monkeypatch.setattr(ModelReader, "_read", counting)
    return counted


def test_each_model_is_published_once_and_read_once_by_each_worker(
    federation: Federation, reads: Counter[str]
) -> None:
    federation.serve("a", "b", "c", "d")
    strategy = fed_avg(4, fraction_evaluate=1.0, initial_parameters=initial(NUMBERS))
    server = federation.run(strategy, rounds=3)
    server.history()
    size = len(server.model())
    stream = published(federation.rig)
    # The first, and what each of the rounds made of it: for its evaluation, and the next training.
    assert len(stream.digests) == 4
    assert set(stream.values()) == {1}
    assert stream.total_bytes == 4 * size
    assert reads == dict.fromkeys(stream.digests, 4)
    down = [round_.bytes_down / size for round_ in server.watch.rounds()]
    assert down == [pytest.approx(expected, abs=0.02) for expected in (2.0, 1.0, 1.0)]
    phases = server.watch.of(PhaseClosed)
    assert [round(p.bytes_down / size, 2) for p in phases if p.phase is Phase.FIT] == [1.0, 0, 0]


class _Unchanged(FedAvg):
    def aggregate_fit(self, server_round: int, results: Any, failures: Any) -> Any:
        return None, {}


def test_a_model_that_stays_as_it_was_is_not_published_again(
    federation: Federation, reads: Counter[str]
) -> None:
    strategy = _Unchanged(
        fraction_evaluate=1.0,
        min_available_clients=2,
        initial_parameters=initial(NUMBERS),
    )
    federation.serve("a", "b")
    server = federation.run(strategy, rounds=3)
    assert server.model() == b"".join(initial(NUMBERS).tensors)
    stream = published(federation.rig)
    assert set(stream.values()) == {1}
    assert list(reads.values()) == [2]
    assert stream.digests == set(reads)


def test_a_small_model_rides_in_its_tasks(federation: Federation, reads: Counter[str]) -> None:
    federation.serve("a", "b")
    federation.run(fed_avg(2, fraction_evaluate=1.0), rounds=2).history()
    assert published(federation.rig) == {}
    assert reads == {}


@dataclass(kw_only=True, repr=False)
class EachItsOwn(FedAvg):
    """Gives each client parameters of its own."""

    numbers: int = 0
    only: tuple[str, ...] = ()

    def ask_only(self, *client_ids: str) -> None:
        """Leave the others alone."""
        self.only = client_ids

    def of(self, client_id: str) -> Parameters:
        rng = np.random.default_rng(sum(client_id.encode()))
        return ndarrays_to_parameters([rng.random(self.numbers, np.float32)])

    def configure_fit(self, server_round: int, parameters: Parameters, manager: Any) -> Any:
        clients = manager.sample(2, 2)
        if self.only:
            manager.wait_for(len(self.only) + 1)
            clients = [client for name, client in manager.all().items() if name in self.only]
        return [(client, FitIns(self.of(client.cid), {})) for client in clients]


@pytest.mark.parametrize("megabytes", [5, 20])
def test_what_is_one_clients_own_comes_to_it_alone(
    federation: Federation, reads: Counter[str], megabytes: int
) -> None:
    strategy = EachItsOwn(
        numbers=megabytes * 250_000,
        fraction_evaluate=0.0,
        min_available_clients=2,
        initial_parameters=initial(),
    )
    federation.serve("a", "b")
    server = federation.run(strategy)
    server.history()
    assert published(federation.rig) == {}
    (round_,) = server.watch.rounds()
    assert round_.fit.accepted == 2
    assert round_.bytes_down / (2 * megabytes * 1e6) == pytest.approx(1.0, abs=0.02)


def test_workers_that_share_a_folder_read_a_model_once(
    federation: Federation, reads: Counter[str], tmp_path: Any
) -> None:
    options = WorkerOptions(heartbeat=1.0, cache_dir=tmp_path)
    federation.serve("a", "b", "c", options=options)
    strategy = fed_avg(3, fraction_evaluate=1.0, initial_parameters=initial(NUMBERS))
    server = federation.run(strategy, rounds=2)
    server.history()
    assert set(reads.values()) == {1}
    assert len(reads) == 3
    assert {path.stem for path in tmp_path.glob("*.blob")} == set(reads)
