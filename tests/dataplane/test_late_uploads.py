"""Late replies in chunks, where they count: across a closing, after it, across servers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from flmq.client.serving.worker import WorkerOptions
from flmq.common import Config, Metrics, NDArrays
from flmq.common.errors import RunError
from flmq.journal import Journal, KeepPolicy
from flmq.observe.events import ClientOutcome
from flmq.round import Outcome
from flmq.server import ServerConfig
from flmq.server.lifecycle.replay import replay
from flmq.server.replies import reply_loop, uploading
from flmq.server.strategy import FedAvg, LateReplies
from flmq.wire import Receipt, ReceiptOutcome, Task
from tests.dataplane.uploading import NUMBERS, Upload
from tests.end_to_end.federation import JOB, Federation, Nudge, Peer, RunningServer, initial
from tests.transport.rigs import PATIENCE, eventually


def averaging() -> FedAvg:
    return FedAvg(
        fraction_evaluate=0.0,
        min_fit_clients=2,
        min_available_clients=2,
        initial_parameters=initial(NUMBERS),
    )


def started(federation: Federation, folder: Path, rounds: int = 3) -> RunningServer:
    """A server whose rounds close with their first reply."""
    return federation.run(
        averaging(),
        config=ServerConfig(num_rounds=rounds, round_timeout=None, target_results=1),
        runs_dir=folder,
        keep=KeepPolicy(replies="all"),
        late=LateReplies.NEXT_ROUND,
    )


def told(peer: Peer, task: Task) -> Receipt:
    """What became of the reply to ``task``."""
    while (receipt := peer.next(Receipt)).task_id != task.task_id:
        pass
    return receipt


def task_of(peer: Peer, server_round: int) -> Task:
    while (task := peer.task()).server_round != server_round:
        pass
    return task


def check(folder: Path, *, into: int, times: int = 1) -> None:
    """The record has a's late reply to round 1 in this round, and gives the same bits again."""
    journal = Journal.open(folder / JOB, create=False)
    rows = {row.server_round: row.phases[0] for row in journal.rounds() if row.phases}
    (late,) = [each for each in rows[1].late if each.outcome is Outcome.LATE]
    assert (late.client_id, late.into, late.times) == ("a", into, 1)
    assert {number for number, row in rows.items() if row.carried} == {into}
    assert all(each.same for each in replay(journal, averaging()))
    assert list((folder / JOB / "spool").glob("*/*")) == []
    journal.close()


def test_an_upload_that_is_cut_by_the_closing_goes_on(
    federation: Federation, tmp_path: Path
) -> None:
    a, b = federation.peer("a"), federation.peer("b")
    server = started(federation, tmp_path)
    late = Upload.of(a, a.task())
    late.send(late.chunks[:2])
    spool = tmp_path / JOB / "spool"
    eventually(lambda: any(spool.glob(f"*/{late.task.task_id}-*")))
    Upload.of(b, b.task()).send()
    second = task_of(b, 2)  # the first round is closed
    for index, data in late.chunks[2:]:
        late.chunk(index, data)
    assert told(a, late.task).reason == "accepted late into round 2"
    Upload.of(b, second).send()
    Upload.of(b, task_of(b, 3)).send()
    server.history()
    assert [r.fit.carried for r in server.watch.rounds()] == [0, 1, 0]
    assert sum(r.incomplete_uploads + r.stray_chunks for r in server.watch.rounds()) == 0
    check(tmp_path, into=2)


def test_an_upload_that_begins_late_counts_once_though_it_comes_twice(
    federation: Federation, tmp_path: Path
) -> None:
    a, b = federation.peer("a"), federation.peer("b")
    server = started(federation, tmp_path)
    late = Upload.of(a, a.task())
    Upload.of(b, b.task()).send()
    second = task_of(b, 2)
    late.send()
    assert told(a, late.task).reason == "accepted late into round 2"
    late.send()
    assert told(a, late.task).outcome is ReceiptOutcome.DUPLICATE
    Upload.of(b, second).send()
    Upload.of(b, task_of(b, 3)).send()
    server.history()
    check(tmp_path, into=2)


def test_a_late_upload_that_breaks_off_is_given_up_after_a_while(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploading, "_SILENCE", 0.2)
    a, b = federation.peer("a"), federation.peer("b")
    server = started(federation, tmp_path, rounds=2)
    late = Upload.of(a, a.task())
    Upload.of(b, b.task()).send()
    second = task_of(b, 2)
    late.send(late.chunks[:2])
    spool = tmp_path / JOB / "spool"
    eventually(lambda: any(spool.glob(f"*/{late.task.task_id}-*")))
    eventually(lambda: not any(spool.glob(f"*/{late.task.task_id}-*")))
    late.chunk(*late.chunks[2])
    receipt = told(a, late.task)
    assert receipt.outcome is ReceiptOutcome.LATE
    assert "before all of it had come" in receipt.reason
    Upload.of(b, second).send()
    server.history()
    assert server.watch.rounds()[1].incomplete_uploads == 1


class _Died(RunError):
    """In place of a kill."""


@pytest.mark.parametrize("overtaken", [False, True])
def test_an_upload_to_a_round_of_a_server_before_counts(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overtaken: bool
) -> None:
    """Also where its chunks, by a queue of their own, come before what announces them."""
    a, b = federation.peer("a"), federation.peer("b")
    server = started(federation, tmp_path)
    late = Upload.of(a, a.task())
    Upload.of(b, b.task()).send()
    second = task_of(b, 2)

    def crash(point: str) -> None:
        if point == "server.reply_journalled":
            raise _Died("killed")

    monkeypatch.setattr(reply_loop, "crash_point", crash)
    Upload.of(b, second).send()
    with pytest.raises(_Died):
        server.history()
    monkeypatch.undo()
    server = started(federation, tmp_path)
    third = task_of(b, 3)
    sends: list[Any] = [late.announce, *(lambda c=c: late.chunk(*c) for c in late.chunks)]
    if overtaken:
        sends.append(sends.pop(0))
    for send in sends:
        send()
    receipt = told(a, late.task)
    assert receipt.reason == "accepted late into round 3"
    assert receipt.late_by_seconds > 0
    Upload.of(b, third).send()
    server.history()
    check(tmp_path, into=3)


class Gate(Nudge):
    """Trains once it is let go."""

    def __init__(self) -> None:
        super().__init__("a")
        self.begun, self.go = threading.Semaphore(0), threading.Semaphore(0)

    def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
        self.begun.release()
        assert self.go.acquire(timeout=PATIENCE)
        return super().fit(parameters, config)


@pytest.mark.parametrize("late", LateReplies)
def test_a_worker_forgets_its_late_reply_whatever_became_of_it(
    federation: Federation, tmp_path: Path, late: LateReplies
) -> None:
    gate, spool = Gate(), tmp_path / "client"
    federation.serve("a", source=gate, options=WorkerOptions(heartbeat=1.0, state_dir=spool))
    b = federation.peer("b")
    server = federation.run(
        averaging(),
        config=ServerConfig(num_rounds=2, round_timeout=None, target_results=1),
        runs_dir=tmp_path / "runs",
        late=late,
    )
    assert gate.begun.acquire(timeout=PATIENCE)
    first = b.task()
    Upload.of(b, first).send()
    second = task_of(b, 2)
    gate.go.release()
    said = server.watch.wait_for(ClientOutcome, lambda o: o.outcome is Outcome.LATE)
    assert (said.client_id, said.server_round) == ("a", 1)
    assert gate.begun.acquire(timeout=PATIENCE)  # it is at the second round's task
    eventually(lambda: len(list(spool.glob("*/spool/*"))) == 1)
    Upload.of(b, second).send()
    gate.go.release()
    server.history()
    carried = [closed.fit.carried for closed in server.watch.rounds()]
    assert carried == ([0, 1] if late is LateReplies.NEXT_ROUND else [0, 0])
    eventually(lambda: list(spool.glob("*/spool/*")) == [])
