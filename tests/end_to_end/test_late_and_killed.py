"""A server killed with a late reply in hand: it counts once, and in the end the bits are the same.

The processes are real, and killed by ``kill -9``; the clients are played by hand, so that there is
no doubt about who is late and what was delivered again.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

from flmq.common import (
    FitIns,
    FitRes,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.common.crashpoints import CRASH_AT
from flmq.common.phase import Phase
from flmq.journal import Journal, PhaseKey
from flmq.round import Outcome
from flmq.server.resumption.job_journal import JobJournal
from flmq.transport.rabbitmq import RabbitMQTransport
from flmq.wire import Receipt, ReceiptOutcome, Task
from tests.dataplane.uploading import Upload
from tests.end_to_end.federation import JOB, OK, Peer
from tests.processes import environment, start
from tests.transport.rigs import PATIENCE

LARGE = 50_000
SMALL = 5


@dataclass
class Stage:
    """A job's server as a process, started anew after each death, and two clients."""

    url: str
    folder: Path
    size: int
    peers: dict[str, Peer] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    starts: int = 0

    def start(self, crash_at: str = "") -> None:
        """Start the server; with ``crash_at`` it dies there."""
        self.starts += 1
        env = {
            **environment(self.url),
            "FLMQ_HEARTBEAT": "1",
            CRASH_AT: crash_at,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        command = [
            *(sys.executable, "-m", "flmq", "server", "tests.end_to_end.late_app:server"),
            *(f"--job={JOB}", "--late=next-round", "--keep-replies", "-c", f"size={self.size}"),
        ]
        if not self.peers:
            # Before anybody can call them: who has no queue then does not hear it.
            self.peers = {name: Peer(RabbitMQTransport(self.url), name) for name in ("a", "b")}
        output = self.folder / f"server-{self.starts}.txt"
        self.process = start(command, output, self.folder, env)
        for peer in self.peers.values():
            peer.greet()

    def dies(self) -> None:
        """Wait for its death by ``kill -9``."""
        assert self.process is not None
        assert self.process.wait(PATIENCE) == -9

    def ends(self) -> None:
        """Wait for its good end."""
        assert self.process is not None
        status = self.process.wait(PATIENCE)
        assert status == 0, (self.folder / f"server-{self.starts}.txt").read_text()

    def task(self, client_id: str, server_round: int) -> Task:
        while (task := self.peers[client_id].task()).server_round != server_round:
            pass
        return task

    def answer(self, task: Task, value: float) -> None:
        """Reply with a model of ``value`` only, in chunks if it is large."""
        peer = self.peers[task.client_id]
        tensors = [np.full(self.size, value, np.float32), np.full((1, 2), value, np.float32)]
        parameters = ndarrays_to_parameters(tensors)
        res = FitRes(OK, parameters, 1, {})
        if self.size == LARGE:
            replace(Upload.of(peer, task, parameters), res=res).send()
        else:
            peer.reply(task, res)

    def receipt(self, task: Task) -> Receipt:
        """What became of the reply to ``task``."""
        while (told := self.peers[task.client_id].next(Receipt)).task_id != task.task_id:
            pass
        return told

    def model(self) -> dict[str, bytes]:
        with np.load(self.folder / "runs" / JOB / "model.npz") as file:
            return {name: file[name].tobytes() for name in file.files}

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for peer in self.peers.values():
            peer.transport.close()


@pytest.fixture
def stages(broker_url: str, tmp_path: Path) -> Iterator[list[Stage]]:
    made: list[Stage] = []
    yield made
    for stage in made:
        stage.close()


# Where it dies; of two fit phases that close and three rounds that end, the second's.
DEATHS = (
    "server.late_journalled",
    "server.phase_closed:2",
    "server.round_aggregated:3",
    "from outside",
)


@pytest.mark.parametrize(
    ("death", "size"), [*((death, LARGE) for death in DEATHS), (DEATHS[0], SMALL)]
)
def test_a_late_reply_survives_its_server_and_counts_once(
    broker_url: str, tmp_path: Path, stages: list[Stage], death: str, size: int
) -> None:
    stage = Stage(broker_url, tmp_path, size)
    stages.append(stage)
    stage.start("" if death == "from outside" else death)
    late = stage.task("a", 1)
    stage.answer(stage.task("b", 1), 1.0)
    second = stage.task("b", 2)
    stage.answer(late, 4.0)
    if death == "server.late_journalled":
        stage.dies()
    else:
        told = stage.receipt(late)
        assert (told.outcome, told.reason) == (
            ReceiptOutcome.ACCEPTED,
            "accepted late into round 2",
        )
        if death == "from outside":
            assert stage.process is not None
            stage.process.kill()
        else:
            stage.answer(second, 2.0)
        stage.dies()
    stage.start()
    if death in ("server.late_journalled", "from outside"):
        stage.answer(stage.task("b", 2), 2.0)
    # And once more, for good measure: nobody counts it again.
    third = stage.task("b", 3)
    stage.answer(late, 4.0)
    while stage.receipt(late).outcome is not ReceiptOutcome.DUPLICATE:
        pass
    stage.answer(third, 8.0)
    stage.ends()

    # The second round's model, (4 + 2) / 2, is nobody's alone; the third is b's.
    assert _model_of_round(stage, 2) == {np.float32(3.0).tobytes()}
    assert all(set(_values(data)) == {8.0} for data in stage.model().values())
    journal = Journal.open(tmp_path / "runs" / JOB, create=False)
    rows = {row.server_round: row.phases[0] for row in journal.rounds() if row.phases}
    journal.close()
    (entry,) = [each for each in rows[1].late if each.outcome is Outcome.LATE]
    assert (entry.client_id, entry.times, entry.into) == ("a", 1, 2)
    assert [rows[number].carried for number in (1, 2, 3)] == [0, 1, 0]
    shown = _flmq(stage, "show", JOB)
    assert re.search(r"round 1 fit: a late by \d+\.\d s, counts in round 2", shown)
    assert "round 2 fit: 1 late replies of earlier rounds count in it" in shown
    replayed = _flmq(
        stage, "replay", JOB, "--app=tests.end_to_end.late_app:server", "-c", f"size={size}"
    )
    assert replayed.count("same bits") == 3, replayed


def _values(data: bytes) -> list[float]:
    values: list[float] = np.frombuffer(data, np.float32).tolist()
    return values


def _model_of_round(stage: Stage, server_round: int) -> set[bytes]:
    """The distinct numbers in the model that round ``server_round`` + 1 sent, by its plan."""
    journal = Journal.open(stage.folder / "runs" / JOB, create=False)
    try:
        planned = JobJournal(journal).planned(PhaseKey(server_round + 1, Phase.FIT))
        assert planned is not None
        ins = planned.asks[0].ins
        assert isinstance(ins, FitIns)
        arrays = parameters_to_ndarrays(ins.parameters)
        return {value.tobytes() for array in arrays for value in np.unique(array)}
    finally:
        journal.close()


def _flmq(stage: Stage, *arguments: str) -> str:
    """Run ``flmq runs`` with these arguments."""
    done = subprocess.run(
        [sys.executable, "-m", "flmq", "runs", *arguments],
        cwd=stage.folder,
        env={**environment(stage.url), "PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
