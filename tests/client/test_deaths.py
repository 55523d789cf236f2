"""Deaths in one task: counted in the client's folder or in its queue, and struck out when done."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flmq.client.serving.work import Work
from flmq.client.serving.worker import WorkerOptions
from flmq.client.tasks.deaths import BrokerDeaths, Deaths, DiedInTask, FolderDeaths, NoDeaths
from flmq.common import FitIns
from flmq.common.phase import Phase
from flmq.messaging import Incoming, Sent
from flmq.observe.events import Outcome
from flmq.transport import (
    TASKS,
    Address,
    Delivery,
    Message,
    PublishOutcome,
    client_queue,
    task_key,
)
from flmq.wire import Begun, Task
from tests.client.test_worker import Gate
from tests.end_to_end.federation import Federation, fed_avg, initial, nudge
from tests.transport.rigs import PATIENCE, eventually

TASK = Task("t", "job", 1, Phase.FIT, "a", 1, b"", FitIns(initial(), {}))


def _acked(incoming: Incoming) -> None:
    """Nobody looks."""


def _queue_of(client_id: str) -> Address:
    return Address(TASKS, task_key("main", client_id))


def _process(folder: Path, most: int = 3) -> FolderDeaths:
    """As another process finds it."""
    return FolderDeaths(_acked, folder, most)


def test_each_process_that_begins_and_does_not_end_is_a_death(tmp_path: Path) -> None:
    for _ in range(3):
        process = _process(tmp_path)
        process.begin(TASK)
        process.begin(TASK)  # again in the same process: no death lies between
    with pytest.raises(DiedInTask, match="its client died 3 times in it") as info:
        _process(tmp_path).begin(TASK)
    assert info.value.deaths == 3
    with pytest.raises(DiedInTask):  # it is not forgotten by being said
        _process(tmp_path).begin(TASK)
    _process(tmp_path).begin(replace(TASK, task_id="other"))
    _process(tmp_path, most=4).begin(TASK)


def test_an_end_in_order_is_no_death_and_what_is_done_is_forgotten(tmp_path: Path) -> None:
    _process(tmp_path, 1).begin(TASK)
    stopped = _process(tmp_path, 2)
    stopped.begin(TASK)
    stopped.leave(TASK)
    with pytest.raises(DiedInTask, match="died 1 times"):
        _process(tmp_path, 1).begin(TASK)
    _process(tmp_path).end("a", "t")
    alone = _process(tmp_path, 1)
    alone.begin(TASK)
    alone.leave(TASK)
    assert list((tmp_path / "a" / "begun").iterdir()) == []


def test_what_cannot_be_noted_or_read_is_no_reason_not_to_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    _process(tmp_path).begin(TASK)
    (tmp_path / "a" / "begun" / "t").write_bytes(b"\xff damaged")
    _process(tmp_path, 1).begin(TASK)

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    _process(tmp_path).begin(replace(TASK, task_id="other"))
    assert "cannot be noted that task other is begun: " in caplog.text


def test_old_notes_are_swept(tmp_path: Path) -> None:
    _process(tmp_path).begin(TASK)
    old = time.time() - 15 * 24 * 3600
    os.utime(tmp_path / "a" / "begun" / "t", (old, old))
    _process(tmp_path).begin(replace(TASK, task_id="other"))
    assert [path.name for path in (tmp_path / "a" / "begun").iterdir()] == ["other"]


def _die_in_a_task(federation: Federation, gate: Gate) -> None:
    """Be gone while it trains, as after kill -9: nothing is said, what is un-acked goes back."""
    transport = federation.rig.transport()
    federation.worker({"a": {}}, gate, WorkerOptions(heartbeat=1.0), transport)
    assert gate.begun.acquire(timeout=PATIENCE)
    transport.close()


def test_without_a_folder_deaths_are_counted_in_the_clients_queue(federation: Federation) -> None:
    gate = Gate()
    strategy = fed_avg(1)
    server = federation.run(strategy, timeout=None)
    try:
        for _ in range(3):
            _die_in_a_task(federation, gate)
        federation.serve("a", source=gate)
        server.history()
        assert [str(f) for f in strategy.failures] == [
            f"client a: failed: DiedInTask: {DiedInTask(3)}"
        ]
        assert gate.calls == 3
        eventually(lambda: _is_empty(federation))
        federation.workers.pop("a").stop()
        eventually(lambda: _is_empty(federation))  # all notes are struck out
    finally:
        for _ in range(3):
            gate.go.release()


def test_deaths_are_counted_in_a_task_that_its_server_asked_for_again_meanwhile(
    memory_federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then what stays in the queue is the newest copy of the task, behind the notes on it."""
    taken: list[str] = []
    take = Work.take

    def noted(work: Work, task: Task, incoming: Incoming) -> None:
        take(work, task, incoming)
        taken.append(task.task_id)

    monkeypatch.setattr(Work, "take", noted)
    monkeypatch.setattr("flmq.server.asks.waiting._ASK_AGAIN_EVERY", 0.5)
    federation, gate = memory_federation, Gate()
    strategy = fed_avg(1)
    server = federation.run(strategy, timeout=None)
    try:
        for _ in range(3):
            taken.clear()
            transport = federation.rig.transport()
            federation.worker({"a": {}}, gate, WorkerOptions(heartbeat=1.0), transport)
            assert gate.begun.acquire(timeout=PATIENCE)
            eventually(lambda: len(taken) > 1)
            transport.close()
        federation.serve("a", source=gate)
        server.history()
        assert gate.calls == 3
        assert [str(f) for f in strategy.failures] == [
            f"client a: failed: DiedInTask: {DiedInTask(3)}"
        ]
        federation.workers.pop("a").stop()
        eventually(lambda: _is_empty(federation))
    finally:
        for _ in range(4):
            gate.go.release()


def test_fewer_deaths_cost_nothing_and_leave_no_notes(federation: Federation) -> None:
    gate = Gate()
    server = federation.run(fed_avg(1), rounds=2, timeout=None)
    try:
        for _ in range(2):
            _die_in_a_task(federation, gate)
        federation.serve("a", source=nudge)
        server.history()
        assert server.watch.words() == {"a": [Outcome.ACCEPTED] * 2}
        federation.workers.pop("a").stop()
        eventually(lambda: _is_empty(federation))
    finally:
        for _ in range(2):
            gate.go.release()


def _is_empty(federation: Federation) -> bool:
    info = federation.rig.witness().inspect_queue(client_queue("a"))
    return info is not None and info.messages_ready == 0


@pytest.mark.parametrize("kind", ["folder", "broker", "none"])
def test_notes_of_no_open_task_are_dropped(
    memory_federation: Federation, tmp_path: Path, kind: str
) -> None:
    """And so are more than make a difference, for anybody may have sent them."""
    acked: list[Incoming] = []
    now = 0.0
    peer = memory_federation.peer("a")
    kinds: dict[str, Deaths] = {
        "folder": FolderDeaths(acked.append, tmp_path, 3),
        "broker": BrokerDeaths(
            peer.sender,
            acked.append,
            lambda client_id, task_id: (client_id, task_id) == ("a", "open"),
            _queue_of,
            instance="me",
            most=3,
            clock=lambda: now,
        ),
        "none": NoDeaths(acked.append),
    }
    deaths = kinds[kind]
    strangers = [Begun("t", "a", "x"), Begun("open", "nobody", "x"), Begun("open", "a", "me")]
    flood = [Begun("open", "a", f"x{number}") for number in range(10)]
    delivery = Delivery(Message(b""), "q", redelivered=False, tag=None)
    incomings = [Incoming(note, 1, delivery) for note in (*strangers, *flood)]
    for note, incoming in zip((*strangers, *flood), incomings, strict=True):
        deaths.hear(note, incoming)
    kept = 4 if kind == "broker" else 0
    deaths.look()
    # Two of tasks that are not here: those may come yet.
    assert len(acked) == len(incomings) - kept - (2 if kind == "broker" else 0)
    now = 10.0
    deaths.look()
    assert len(acked) == len(incomings) - kept
    deaths.end("a", "open")
    assert len(acked) == len(incomings)


def test_notes_of_tasks_that_are_not_here_are_kept_of_few_only(
    memory_federation: Federation,
) -> None:
    acked: list[Incoming] = []
    sender = memory_federation.peer("a").sender
    deaths = BrokerDeaths(
        sender, acked.append, lambda client_id, task_id: False, _queue_of, instance="me", most=3
    )
    delivery = Delivery(Message(b""), "q", redelivered=False, tag=None)
    for number in range(100):
        note = Begun(f"t{number}", "a", "x")
        deaths.hear(note, Incoming(note, 1, delivery))
    assert len(acked) == 36


def test_a_note_is_not_on_the_brokers_disk() -> None:
    """A sync of the client's queue for each task would cost the broker more than the task does."""
    options: dict[str, object] = {}

    class Notes:
        def send(self, address: object, note: Begun, **given: object) -> Sent:
            options.update(given)
            done: Future[PublishOutcome] = Future()
            done.set_result(PublishOutcome.CONFIRMED)
            return Sent(100, done)

    sender: Any = Notes()
    deaths = BrokerDeaths(
        sender, _acked, lambda client, task: True, _queue_of, instance="me", most=3
    )
    deaths.begin(TASK)
    assert options["persistent"] is False
