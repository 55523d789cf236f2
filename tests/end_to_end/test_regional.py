"""Federations with an aggregator beside their clients: the bits of the flat run, whatever fails."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from flmq.client.options import WorkerOptions
from flmq.common.crashpoints import CRASH_AT
from flmq.observe.events import Outcome, PartialSumCame
from flmq.region import AggregatorOptions
from flmq.region.app import Aggregator
from flmq.server.strategy import FedAvg
from flmq.testing import fast_retries
from flmq.transport import Transport
from tests.end_to_end.federation import Federation, RunningServer, in_thread, initial
from tests.transport.rigs import PATIENCE, MemoryRig, RabbitMQRig, eventually

CLIENTS = ["ann", "bob", "cy"]


class Aggregators:
    """Aggregators in threads, which `close` ends."""

    def __init__(self, federation: Federation) -> None:
        self._federation = federation
        self._running: list[tuple[Aggregator, Transport, Future[None]]] = []

    def start(self, state_dir: Path | None = None, **options: Any) -> Aggregator:
        """Start one, and wait until it is there."""
        over = self._federation.rig.transport()
        chosen = AggregatorOptions(state_dir=state_dir, report_every=0.2, **options)
        aggregator = Aggregator(over, chosen)
        begun = threading.Event()
        done = in_thread(lambda: aggregator.run(begun.set))
        self._running.append((aggregator, over, done))
        assert begun.wait(PATIENCE), done.exception(0)
        return aggregator

    def stop(self) -> None:
        """End them in order, and raise what they ended by."""
        running, self._running = self._running, []
        for aggregator, over, done in running:
            aggregator.stop()
            done.result(PATIENCE)
            over.close()


@pytest.fixture
def aggregators(federation: Federation) -> Iterator[Aggregators]:
    made = Aggregators(federation)
    yield made
    made.stop()


def mean_of(size: int = 5, clients: int = len(CLIENTS), **options: Any) -> FedAvg:
    """FedAvg as it is, which adds replies up as they come."""
    return FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=clients,
        min_available_clients=clients,
        initial_parameters=initial(size),
        **options,
    )


def flat(rounds: int = 2, size: int = 5) -> bytes:
    """The model of the run without aggregators."""
    rig = MemoryRig()
    federation = Federation(rig)
    federation.serve(*CLIENTS)
    try:
        return federation.run(mean_of(size), rounds).model()
    finally:
        federation.close()
        rig.close()


def sums(server: RunningServer) -> list[PartialSumCame]:
    return server.watch.of(PartialSumCame)


@pytest.mark.parametrize("size", [5, 40_000], ids=["small", "in chunks"])
def test_one_aggregator_leaves_the_bits_as_they_are(
    federation: Federation, aggregators: Aggregators, tmp_path: Path, size: int
) -> None:
    aggregators.start(tmp_path / "state")
    federation.serve(*CLIENTS)
    server = federation.run(mean_of(size), 2, runs_dir=tmp_path / "runs")
    assert server.model() == flat(2, size)
    assert [(each.clients, each.refused) for each in sums(server)] == [(3, ""), (3, "")]
    words = server.watch.words()
    assert words == {client: [Outcome.ACCEPTED] * 2 for client in CLIENTS}


@pytest.mark.parametrize("size", [5, 40_000], ids=["small", "in chunks"])
def test_replies_whose_metrics_are_too_many_for_one_sum_are_passed_on(
    federation: Federation,
    aggregators: Aggregators,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    monkeypatch.setattr("flmq.region.work._MOST_VALUES", 2 * 40)
    aggregators.start(tmp_path / "state")
    federation.serve(*CLIENTS)
    server = federation.run(mean_of(size), 2, None, runs_dir=tmp_path / "runs")
    assert server.model() == flat(2, size)
    assert [(each.clients, each.refused) for each in sums(server)] == [(2, ""), (2, "")]
    words = server.watch.words()
    assert words == {client: [Outcome.ACCEPTED] * 2 for client in CLIENTS}


def test_a_tree_of_three_regions_leaves_the_bits_as_they_are(
    memory_federation: Federation, tmp_path: Path
) -> None:
    federation = memory_federation
    aggregators = Aggregators(federation)
    aggregators.start(tmp_path / "a", site="a")
    aggregators.start(tmp_path / "b", site="b", regions="a")
    top = aggregators.start(tmp_path / "main", regions="b")
    federation.serve("ann", options=WorkerOptions(heartbeat=1.0, site="a"))
    federation.serve("bob", options=WorkerOptions(heartbeat=1.0, site="b"))
    federation.serve("cy")
    eventually(lambda: len(top.covers) >= 3)
    server = federation.run(mean_of(40_000), 2, sites=("main", "a", "b"))
    assert server.model() == flat(2, 40_000)
    assert [(each.site, each.clients, each.refused) for each in sums(server)] == [
        ("main", 3, "")
    ] * 2
    aggregators.stop()


DEATHS = (
    "order_kept:1",
    "reply_kept:1",
    "acked:1",
    "partial_written:1",
    "partial_kept:1",
    "partial_sent:1",
    "reply_kept:2",
    "acked:2",
    "partial_sent:2",
    "order_kept:3",
)


@pytest.mark.parametrize("rounds", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_killed_again_and_again_it_loses_and_doubles_nothing(
    broker_url: str, tmp_path: Path, rounds: int
) -> None:
    deaths = DEATHS[:rounds]
    with fast_retries():
        rig = RabbitMQRig(broker_url)
        federation = Federation(rig)
        supervised = Killed(broker_url, tmp_path / "state", deaths)
        try:
            supervised.start()
            server = federation.run(mean_of(), rounds, timeout=120.0, runs_dir=tmp_path / "runs")
            federation.serve(*CLIENTS)
            server.history(180.0)
            model = server.model()
        finally:
            supervised.stop()
            federation.close()
            rig.close()
    assert model == flat(rounds)
    assert supervised.died == list(deaths)
    assert server.watch.words() == {client: [Outcome.ACCEPTED] * rounds for client in CLIENTS}
    assert len(sums(server)) >= 1


class Killed:
    """`flmq aggregate`, killed at one point after the other, and started again each time."""

    def __init__(self, url: str, state_dir: Path, deaths: Sequence[str]) -> None:
        self._url = url
        self._deaths = deaths
        self._state_dir = state_dir
        self._stopping = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._run)
        self.died: list[str] = []
        """The points at which it died."""

    def start(self) -> None:
        """Start the first, and wait until it serves."""
        self._thread.start()
        begun = self._state_dir / "main" / "aggregator.db"
        eventually(begun.exists, 3 * PATIENCE)

    def stop(self) -> None:
        """End the last."""
        self._stopping.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join()

    def _run(self) -> None:
        command = [sys.executable, "-m", "flmq", "aggregate", "--standby", "--report-every", "0.2"]
        for point in (*self._deaths, ""):
            env = {
                **os.environ,
                "FLMQ_BROKER_URL": self._url,
                "FLMQ_STATE_DIR": str(self._state_dir),
                CRASH_AT: f"aggregator.{point}" if point else "",
            }
            with (self._state_dir.parent / "aggregators.log").open("ab") as log:
                self._process = subprocess.Popen(command, env=env, stderr=log)
                status = self._process.wait()
            if self._stopping.is_set():
                return
            assert status == -signal.SIGKILL, status
            self.died.append(point)
