"""Receipts that do not come are asked for: a spool does not keep what its server has long had."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from flmq.client.options import WorkerOptions
from flmq.client.tasks.receipts import KEPT_FOR, AwaitedReceipts, log_receipt
from flmq.common import FitIns, FitRes, Parameters, Status
from flmq.common.phase import Phase
from flmq.common.typing import Code
from flmq.observe.events import Outcome
from flmq.server.replies.receipts import Receipts
from flmq.testing import ManualClock
from flmq.wire import Receipt, ReceiptOutcome, Reply, Task
from tests.client.test_worker import Gate
from tests.end_to_end.federation import Federation, fed_avg
from tests.transport.rigs import PATIENCE, eventually

NONE = Parameters([], "")


def envelope(task_id: str) -> Reply:
    res = FitRes(Status(Code.OK, ""), Parameters([], ""), 1, {})
    return Reply(task_id, "job", 1, Phase.FIT, "a", 1, b"", 0.0, res)


def test_they_are_asked_for_after_a_minute_and_then_ever_more_rarely() -> None:
    clock = ManualClock()
    awaited = AwaitedReceipts(clock.now)
    awaited.sent(envelope("t"))
    asked = []
    for minute in range(60 * 24):
        if awaited.overdue():
            asked.append(minute)
        clock.advance(60.0)
    assert asked[:7] == [1, 3, 7, 15, 31, 63, 123]
    assert {later - earlier for earlier, later in pairwise(asked[6:])} == {60}


def test_what_was_settled_is_not_asked_for() -> None:
    clock = ManualClock()
    awaited = AwaitedReceipts(clock.now)
    for task_id in ("t1", "t2"):
        awaited.sent(envelope(task_id))
    awaited.settled("t1")
    awaited.settled("unknown")
    clock.advance(60)
    assert [reply.task_id for reply in awaited.overdue()] == ["t2"]


def test_what_found_no_queue_is_sent_when_the_server_is_heard_and_now_and_then() -> None:
    clock, task = ManualClock(), Task("t", "job", 1, Phase.FIT, "a", 1, b"", FitIns(NONE, {}))
    awaited = AwaitedReceipts(clock.now)
    awaited.sent(envelope("t"))
    assert awaited.not_sent(task)  # the queue was deleted since
    assert not awaited.not_sent(task)  # which is no news
    assert not awaited.is_sent("t")
    assert (awaited.unsent("job"), awaited.unsent("other")) == ([task], [])
    assert awaited.overdue() == []
    tried = []
    for second in range(100):
        if awaited.overdue():
            tried.append(second)
            assert not awaited.not_sent(task)
        clock.advance(1)
    assert tried == [5, 15, 35, 75]
    awaited.sent(envelope("t"))
    assert (awaited.is_sent("t"), awaited.unsent("job")) == (True, [])


def test_what_nobody_asks_for_is_waited_for_for_a_fortnight() -> None:
    clock, task = (
        ManualClock(),
        Task("t1", "job", 1, Phase.FIT, "a", 1, b"", FitIns(NONE, {})),
    )
    awaited = AwaitedReceipts(clock.now)
    awaited.not_sent(task)
    clock.advance(KEPT_FOR - 1)
    awaited.not_sent(task)  # tried again
    awaited.sent(envelope("t2"))
    assert awaited.too_old() == []
    clock.advance(1)
    assert awaited.too_old() == [task]
    assert (awaited.too_old(), awaited.is_sent("t2")) == ([], True)


def test_a_lost_receipt_leaves_nothing_in_the_spool(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flmq.client.tasks.receipts._PATIENCE", 0.3)
    send = Receipts.send
    lost: list[str] = []

    def loses_the_first(self: Receipts, reply: Reply, *args: Any) -> None:
        if not lost:
            lost.append(reply.task_id)
        else:
            send(self, reply, *args)

    monkeypatch.setattr(Receipts, "send", loses_the_first)
    gate = Gate()
    options = WorkerOptions(state_dir=tmp_path, heartbeat=0.2)
    federation.serve("a", source=gate, options=options)
    server = federation.run(fed_avg(1), rounds=2, timeout=None, heartbeat=0.2)
    gate.go.release()
    for _ in range(2):  # the second round's: the first one's reply was accepted
        assert gate.begun.acquire(timeout=PATIENCE)
    eventually(lambda: not list(tmp_path.glob("*/spool/*.reply")))
    gate.go.release()
    server.history()
    assert lost
    assert server.watch.words()["a"].count(Outcome.ACCEPTED) == 2
    assert Outcome.DUPLICATE in server.watch.words()["a"]
    assert gate.calls == 2


@pytest.mark.parametrize(
    ("outcome", "reason", "said"),
    [
        # An exception was logged with its traceback when it was raised.
        (ReceiptOutcome.ACCEPTED, "ValueError: no data", []),
        (ReceiptOutcome.ACCEPTED, "", []),
        (ReceiptOutcome.ACCEPTED, "FIT_NOT_IMPLEMENTED: no fit", ["taken for a failure"]),
        (ReceiptOutcome.ACCEPTED, "accepted late into round 3", ["accepted late into round 3"]),
        (ReceiptOutcome.REJECTED, "tensor 0 holds NaN", ["was rejected: tensor 0 holds NaN"]),
    ],
)
def test_a_failure_is_logged_once(
    outcome: ReceiptOutcome, reason: str, said: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "flmq")
    log_receipt(Receipt("t", "job", 1, Phase.FIT, "a", outcome, reason))
    assert len(caplog.records) == len(said)
    assert all(words in caplog.text for words in said)
