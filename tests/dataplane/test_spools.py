"""Workers with a folder of their own, over both transports: what is in it, and until when."""

from __future__ import annotations

import threading
from pathlib import Path

from flmq.client import NumPyClient
from flmq.client.serving.worker import WorkerOptions
from flmq.common import Config, Metrics, NDArrays
from flmq.observe.events import ClientOutcome, Outcome, RoundCounts
from flmq.transport import client_queue
from tests.dataplane.looks import mean_of, trained
from tests.end_to_end.federation import Federation, Nudge, fed_avg, initial
from tests.transport.rigs import PATIENCE, eventually

NUMBERS = 50_000
MODEL = initial(NUMBERS)


class Gate(NumPyClient):
    """Trains as `Nudge` does once it is let go, and counts."""

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.go = threading.Semaphore(0)
        self.calls = 0

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self.calls += 1
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE)
        return Nudge("a").fit(parameters, config)


def _spooled(folder: Path) -> set[str]:
    return {path.suffix for path in folder.glob("*/spool/*")}


def _options(folder: Path) -> WorkerOptions:
    return WorkerOptions(heartbeat=1.0, state_dir=folder)


def _in_queue(federation: Federation) -> int:
    info = federation.rig.witness().inspect_queue(client_queue("a"))
    assert info is not None
    return info.messages_ready


def test_a_task_is_acked_once_it_is_in_the_spool_and_forgotten_with_its_receipt(
    federation: Federation, tmp_path: Path
) -> None:
    gate = Gate()
    federation.serve("a", source=gate, options=_options(tmp_path))
    peer = federation.peer("peer")
    server = federation.run(fed_avg(2, initial_parameters=initial(NUMBERS)), timeout=None)
    assert gate.begun.acquire(timeout=PATIENCE)
    assert _spooled(tmp_path) == {".task"}
    federation.rig.cut()  # what is not acked comes again
    gate.go.release()
    server.watch.wait_for(ClientOutcome, lambda o: o.outcome is Outcome.ACCEPTED)
    eventually(lambda: _spooled(tmp_path) == set())
    assert _in_queue(federation) == 0
    assert gate.calls == 1
    peer.reply(peer.task(), trained("peer", MODEL))
    assert server.model() == mean_of(["a", "peer"], MODEL)


def test_the_end_of_a_job_clears_its_tasks_also_those_in_training(
    federation: Federation, tmp_path: Path
) -> None:
    gate = Gate()
    federation.serve("a", source=gate, options=_options(tmp_path))
    server = federation.run(fed_avg(1, initial_parameters=initial(NUMBERS)), timeout=1.5)
    assert gate.begun.acquire(timeout=PATIENCE)
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=1, silent=1)
    eventually(lambda: _spooled(tmp_path) == set())
    gate.go.release()
    gate.go.release()
    again = federation.run(fed_avg(1, initial_parameters=initial(NUMBERS)), job="next")
    assert again.model() == mean_of(["a"], MODEL)
    assert gate.calls == 2
    eventually(lambda: _spooled(tmp_path) == set())
