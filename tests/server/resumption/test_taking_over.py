"""A server that takes a job over hears clients at once, while it still opens what it found open.

Replies that waited for it are taken in only when its phase is there, with what an earlier server
had taken in: whatever the listener's thread does in between, each counts once, and the first of a
client.
"""

from __future__ import annotations

import logging
import shutil
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters, parameters_to_ndarrays
from flmq.journal.records import KeepPolicy
from flmq.observe.events import ClientOutcome
from flmq.round import Outcome
from flmq.server import ServerConfig
from flmq.server.asks import asks
from flmq.server.replies.listener import Listener
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.transport import replies_queue
from flmq.wire import Failure, FailureKind, Receipt, ReceiptOutcome
from tests.dying import Died
from tests.end_to_end.federation import Federation, RunningServer, fed_avg, fit_res, initial
from tests.transport.rigs import PATIENCE


def _run(federation: Federation, folder: Path, clients: int) -> RunningServer:
    config = ServerConfig(num_rounds=1, round_timeout=None)
    return federation.run(
        fed_avg(clients), config=config, runs_dir=folder, keep=KeepPolicy(replies="all")
    )


class Laps:
    """Lets one wait until the listener has looked over again what came early."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._changed = threading.Condition()
        self._laps = 0
        self._taken = 0
        take, perform = ReplyLoop.take, ReplyLoop.perform

        def counted_take(self_: ReplyLoop, *args: Any, **more: Any) -> None:
            take(self_, *args, **more)
            with self._changed:
                self._taken += 1
                self._changed.notify_all()

        def counted(self_: ReplyLoop) -> None:
            perform(self_)
            with self._changed:
                self._laps += 1
                self._changed.notify_all()

        monkeypatch.setattr(ReplyLoop, "take", counted_take)
        monkeypatch.setattr(ReplyLoop, "perform", counted)

    def wait_for_reply(self) -> None:
        """Wait until a reply is here."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._taken > 0, PATIENCE)

    def wait(self) -> None:
        """Wait until what is here has been looked over since now."""
        with self._changed:
            enough = self._laps + 2
            assert self._changed.wait_for(lambda: self._laps >= enough, PATIENCE)


def _die_when_published(name: str) -> None:
    if name == "server.tasks_published":
        raise Died("killed")


def test_a_reply_heard_while_its_phase_is_being_opened_counts(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asks, "crash_point", _die_when_published)
    client = memory_federation.peer("a")
    first = _run(memory_federation, tmp_path, 1)
    task = client.task()
    with pytest.raises(Died):
        first.history()
    client.reply(task)
    laps = Laps(monkeypatch)

    def dawdle(name: str) -> None:
        if name == "server.phase_planned":
            laps.wait_for_reply()
            laps.wait()

    monkeypatch.setattr(asks, "crash_point", dawdle)
    second = _run(memory_federation, tmp_path, 1)
    assert client.next(Receipt).outcome is ReceiptOutcome.ACCEPTED
    second.history()
    assert [r.fit.accepted for r in second.watch.rounds()] == [1]


def test_what_an_earlier_server_had_taken_in_comes_before_what_waited(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = memory_federation.peer("a"), memory_federation.peer("b")
    first = _run(memory_federation, tmp_path, 2)
    task, other = a.task(), b.task()
    a.reply(task, fit_res(task, lambda tensors: [t + np.float32(1) for t in tensors]))
    first.watch.wait_for(ClientOutcome)
    monkeypatch.setattr(Listener, "_hear", _fail)
    # The second answer of a client that was killed and trained anew; the first is written down.
    a.reply(task, fit_res(task, lambda tensors: [t + np.float32(5) for t in tensors]))
    with pytest.raises(Died):
        first.history()
    monkeypatch.undo()
    laps = Laps(monkeypatch)
    begins = asks.Asks._begins

    def dawdle(self: asks.Asks, *args: Any) -> Any:
        events = begins(self, *args)
        laps.wait_for_reply()
        return events

    monkeypatch.setattr(asks.Asks, "_begins", dawdle)
    second = _run(memory_federation, tmp_path, 2)
    b.reply(other, fit_res(other, lambda tensors: [t + np.float32(1) for t in tensors]))
    expected = [t + np.float32(1) for t in parameters_to_ndarrays(initial())]
    assert second.model() == b"".join(ndarrays_to_parameters(expected).tensors)


@pytest.mark.parametrize("good", [True, False], ids=["good", "with NaN"])
def test_a_reply_that_comes_before_its_phase_is_written_down_before_it_is_acked(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, good: bool
) -> None:
    """Its server dies before the phase is open, and its client is never heard of again."""
    monkeypatch.setattr(asks, "crash_point", _die_when_published)
    client, other = memory_federation.peer("a"), memory_federation.peer("b")
    first = _run(memory_federation, tmp_path, 2)
    task, others = client.task(), other.task()
    with pytest.raises(Died):
        first.history()
    value = np.float32(1 if good else np.nan)
    client.reply(task, fit_res(task, lambda tensors: [t * value for t in tensors]))
    laps = Laps(monkeypatch)

    def die_when_it_is_here(name: str) -> None:
        if name == "server.phase_planned":
            laps.wait_for_reply()
            laps.wait()
            raise Died("killed")

    monkeypatch.setattr(asks, "crash_point", die_when_it_is_here)
    second = _run(memory_federation, tmp_path, 2)
    with pytest.raises(Died):
        second.history()
    queue = memory_federation.rig.witness().inspect_queue(replies_queue("job"))
    assert queue is not None
    assert queue.messages_ready == 0
    monkeypatch.undo()
    third = _run(memory_federation, tmp_path, 2)
    other.reply(others)
    told = client.next(Receipt)
    assert told.outcome is (ReceiptOutcome.ACCEPTED if good else ReceiptOutcome.REJECTED)
    third.history()
    words = {"a": [Outcome.ACCEPTED if good else Outcome.REJECTED], "b": [Outcome.ACCEPTED]}
    assert third.watch.words() == words


def test_a_server_whose_folder_is_an_earlier_copy_takes_nothing_that_it_has_not_asked(
    memory_federation: Federation,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It gives no receipt for what is to come, and has done anew what is settled elsewhere."""

    def run() -> RunningServer:
        config = ServerConfig(num_rounds=2, round_timeout=None)
        return memory_federation.run(fed_avg(1), config=config, runs_dir=tmp_path / "runs")

    caplog.set_level(logging.INFO)
    client = memory_federation.peer("a")
    monkeypatch.setattr(asks, "crash_point", _die_when_published)
    with pytest.raises(Died):
        run().history()
    shutil.copytree(tmp_path / "runs", tmp_path / "copy")
    monkeypatch.undo()
    second = run()
    client.reply(client.task())
    while (ahead := client.task()).server_round != 2:
        pass
    monkeypatch.setattr(Listener, "_hear", _fail)
    client.hello()
    with pytest.raises(Died):
        second.history()
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "runs")
    (tmp_path / "copy").rename(tmp_path / "runs")
    third = run()
    while (asked := client.task()).epoch <= ahead.epoch:
        pass
    client.reply(ahead)
    client.reply(asked, Failure(FailureKind.SETTLED))
    anew = client.task()
    assert (asked.server_round, asked.again) == (1, 0)
    assert (anew.task_id, anew.again) == (asked.task_id, asked.epoch)
    client.reply(anew, Failure(FailureKind.SETTLED))  # the broker delivered it once more
    client.reply(anew)
    # The first receipt is that of the round that was asked, and none was sent for the next.
    assert client.next(Receipt).task_id == asked.task_id
    assert client.task().task_id == ahead.task_id
    client.reply(ahead)
    third.history()
    assert third.watch.words() == {"a": [Outcome.ACCEPTED, Outcome.ACCEPTED]}
    assert caplog.text.count("it does the task anew") == 1
    assert "a reply of a to round 2, fit, came before it was asked for" in caplog.text


def _fail(self: Listener, incoming: Any) -> None:
    raise Died("killed")
