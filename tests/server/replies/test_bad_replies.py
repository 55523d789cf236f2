"""Replies that do not answer what was asked: named, told to their client, and without effect."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flmq.common import (
    Code,
    EvaluateRes,
    FitRes,
    NDArrays,
    Parameters,
    Status,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
)
from flmq.observe.events import ClientOutcome, Outcome, RoundCounts
from flmq.server.job.client_failure import ClientFailure
from flmq.transport import DEAD
from flmq.wire import Failure, FailureKind, JobEnded, Receipt, ReceiptOutcome, Task
from tests.end_to_end.federation import OK, Federation, Nudge, Peer, fed_avg, fit_res, initial

Change = Callable[[NDArrays], list[Any]]


def _with(value: float) -> Change:
    return lambda tensors: [tensors[0], np.array([[1.0, value]], np.float32)]


REJECTED: dict[str, Callable[[Task], FitRes]] = {
    "1 tensors came, the model has 2": lambda t: fit_res(t, lambda a: a[:1]),
    "3 tensors came, the model has 2": lambda t: fit_res(t, lambda a: [*a, a[0]]),
    "0 tensors came": lambda t: fit_res(t, lambda a: []),
    "has shape": lambda t: fit_res(t, lambda a: [a[0][:1], a[1]]),
    "is float64": lambda t: fit_res(t, lambda a: [a[0].astype(np.float64), a[1]]),
    "holds NaN": lambda t: fit_res(t, _with(np.nan)),
    "or infinity": lambda t: fit_res(t, _with(-np.inf)),
    "num_examples is 0": lambda t: fit_res(t, num_examples=0),
    "num_examples is -3": lambda t: fit_res(t, num_examples=-3),
    "cannot be read": lambda t: fit_res(
        t, parameters=Parameters([b"\x93NUMPY\x01", b""], "numpy.ndarray")
    ),
    "of type 'torch'": lambda t: fit_res(t, parameters=Parameters([b"", b""], "torch")),
}


def test_a_reply_that_does_not_fit_is_rejected_and_its_client_is_told(
    federation: Federation,
) -> None:
    """One round a kind of reply, all in one run; the other client's reply makes the model."""
    strategy = fed_avg(2)
    federation.serve("good")
    peer = federation.peer("peer")
    server = federation.run(strategy, rounds=len(REJECTED))
    for reason, bad in REJECTED.items():
        task = peer.task()
        peer.reply(task, bad(task))
        receipt = peer.receipt()
        assert receipt.outcome is ReceiptOutcome.REJECTED
        assert receipt.task_id == task.task_id
        assert reason in receipt.reason
    server.history()
    for round_closed, reason in zip(server.watch.rounds(), REJECTED, strict=True):
        assert round_closed.fit == RoundCounts(asked=2, accepted=1, rejected=1), reason
    assert len(strategy.failures) == len(REJECTED)
    for failure, reason in zip(strategy.failures, REJECTED, strict=True):
        assert isinstance(failure, ClientFailure)
        assert (failure.client_id, failure.outcome) == ("peer", Outcome.REJECTED)
        assert reason in failure.reason
    alone = _model_of("good", len(REJECTED))
    assert server.watch.model() == alone


def test_a_status_other_than_ok_is_a_failure_with_its_reply(federation: Federation) -> None:
    strategy = fed_avg(2)
    federation.serve("good")
    peer = federation.peer("peer")
    server = federation.run(strategy)
    task = peer.task()
    peer.reply(task, fit_res(task, status=Status(Code.FIT_NOT_IMPLEMENTED, "no fit here")))
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=1, failed=1)
    (failure,) = strategy.failures
    assert isinstance(failure, tuple)
    proxy, res = failure
    assert proxy.cid == "peer"
    assert res.status == Status(Code.FIT_NOT_IMPLEMENTED, "no fit here")
    outcome = server.watch.wait_for(ClientOutcome, lambda o: o.outcome is Outcome.FAILED)
    assert outcome.reason == "FIT_NOT_IMPLEMENTED: no fit here"


def test_a_failure_that_a_client_reports_is_there_at_once(federation: Federation) -> None:
    strategy = fed_avg(1)
    peer = federation.peer("peer")
    server = federation.run(strategy, timeout=None)
    task = peer.task()
    peer.reply(task, Failure(FailureKind.EXCEPTION, "ValueError", "no data", "in fit\nValueError"))
    server.history()
    (failure,) = strategy.failures
    assert isinstance(failure, ClientFailure)
    assert (failure.client_id, failure.outcome) == ("peer", Outcome.FAILED)
    assert (failure.reason, failure.detail) == ("ValueError: no data", "in fit\nValueError")


def test_a_reply_from_nowhere_is_refused_and_the_round_goes_on(federation: Federation) -> None:
    peer, other = federation.peer("peer"), federation.peer("other")
    server = federation.run(fed_avg(2))
    task, others = peer.task(), other.task()
    forged: dict[str, dict[str, Any]] = {
        "answers a task that nobody sent (f00d)": {"task_id": "f00d"},
        "answers the task of other": {"task_id": others.task_id, "nonce": others.nonce},
        "does not have its task's nonce": {"nonce": b"guessed"},
        "names another job": {"job": "elsewhere"},
    }
    for changes in forged.values():
        _send_to_job(peer, task, **changes)
    # Only the last is its own task's: a receipt to the others would go to whom they only name.
    receipt = peer.receipt()
    assert receipt.outcome is ReceiptOutcome.REJECTED
    assert "names another job" in receipt.reason
    # In another's name: what it says it is cannot help it, the task names whom it was sent to.
    peer.reply(task, client_id="other")
    peer.reply(task)
    other.reply(others)
    server.history()
    assert set(_receipts(other)) <= {ReceiptOutcome.ACCEPTED}  # the last may come after the end
    assert server.watch.words() == {"peer": [Outcome.ACCEPTED], "other": [Outcome.ACCEPTED]}
    reasons = [str(incoming.message.headers["x-flmq-reason"]) for incoming in federation.dead(5)]
    for reason, said in zip([*forged, "answers the task of peer"], reasons, strict=True):
        assert reason in said


def test_a_flood_of_forged_replies_costs_neither_the_victim_nor_the_dead_letters(
    federation: Federation, caplog: pytest.LogCaptureFixture
) -> None:
    flood, sample = 3000, 50  # of one sender
    peer, victim = federation.peer("peer"), federation.peer("victim")
    server = federation.run(fed_avg(2))
    task, address = victim.task(), victim.reply_address()
    begun = time.monotonic()
    for number in range(flood):
        body = peer.answer(task, nonce=number.to_bytes(16, "big"), client_id="victim")
        peer.sender.send(address, body)
    peer.reply(peer.task())
    victim.reply(task)
    server.history()
    allowed = sample + 5 * (time.monotonic() - begun) + 1
    assert set(_receipts(victim)) <= {ReceiptOutcome.ACCEPTED}  # the last may come after the end
    with federation.rig.transport() as witness:
        info = witness.inspect_queue(DEAD)
    assert info is not None
    assert sample <= info.messages_ready <= allowed
    lines = [each for each in caplog.records if "does not have its task's nonce" in each.message]
    assert len(lines) <= allowed
    assert server.watch.words() == {name: [Outcome.ACCEPTED] for name in ("peer", "victim")}


def test_a_second_reply_is_a_duplicate_and_counts_for_nothing(federation: Federation) -> None:
    peer, other = federation.peer("peer"), federation.peer("other")
    server = federation.run(fed_avg(2))
    task = peer.task()
    peer.reply(task)
    peer.reply(task)
    assert peer.receipt().outcome is ReceiptOutcome.DUPLICATE
    # Neither another answer nor a failure takes the place of the first.
    peer.reply(task, fit_res(task, num_examples=1000))
    assert peer.receipt().outcome is ReceiptOutcome.DUPLICATE
    peer.reply(task, Failure(FailureKind.EXCEPTION))
    assert peer.receipt().outcome is ReceiptOutcome.DUPLICATE
    other.reply(other.task())
    server.history()
    assert server.watch.rounds()[0].fit == RoundCounts(asked=2, accepted=2, duplicate=3)


def test_a_reply_after_the_round_closed_is_late_and_says_how_late(federation: Federation) -> None:
    strategy = fed_avg(2)
    peer, other = federation.peer("peer"), federation.peer("other")
    server = federation.run(strategy, rounds=2, timeout=1.0)
    late = peer.task()
    other.reply(other.task())
    second = peer.task()  # the next round has begun
    peer.reply(late)
    receipt = peer.receipt()
    assert receipt.outcome is ReceiptOutcome.LATE
    assert (receipt.server_round, receipt.task_id) == (1, late.task_id)
    assert 0 < receipt.late_by_seconds < 30
    peer.reply(second)
    other.reply(other.task())
    server.history()
    assert server.watch.words(1)["peer"] == [Outcome.SILENT, Outcome.LATE]
    assert server.watch.words(2)["peer"] == [Outcome.ACCEPTED]


@pytest.mark.parametrize(
    ("loss", "num_examples", "reason"),
    [(np.nan, 3, "loss is nan"), (np.inf, 3, "loss is inf"), (1.0, 0, "num_examples is 0")],
)
def test_an_evaluation_must_have_a_finite_loss_and_examples(
    memory_federation: Federation, loss: float, num_examples: int, reason: str
) -> None:
    peer, other = memory_federation.peer("peer"), memory_federation.peer("other")
    server = memory_federation.run(fed_avg(2, fraction_evaluate=1.0))
    for each in (peer, other):
        each.reply(each.task())
    peer.reply(peer.task(), EvaluateRes(OK, loss, num_examples, {}))
    assert reason in peer.receipt().reason
    other.reply(other.task(), EvaluateRes(OK, 2.5, 1, {"accuracy": 0.5}))
    history = server.history()
    assert history.losses_distributed == [(1, 2.5)]
    assert history.metrics_distributed == {"accuracy": [(1, 0.5)]}


def _send_to_job(peer: Peer, task: Task, **changes: Any) -> None:
    """Reply into the queue of the task's job, whatever job the reply names."""
    address = peer.reply_address(task.job)
    peer.reply_address = lambda job="": address  # type: ignore[method-assign]
    peer.reply(task, **changes)
    del peer.reply_address


def _model_of(client_id: str, rounds: int) -> bytes:
    tensors = parameters_to_ndarrays(initial())
    for _ in range(rounds):
        tensors = Nudge(client_id).nudged(tensors)
    return b"".join(ndarrays_to_parameters(tensors).tensors)


def _receipts(peer: Peer) -> list[ReceiptOutcome]:
    """What has come to a peer by the end of its job, of receipts."""
    outcomes = []
    while not isinstance(body := peer.next(object), JobEnded):
        if isinstance(body, Receipt):
            outcomes.append(body.outcome)
    return outcomes
