"""Late replies: dropped by default; where a strategy wants, they count in a later round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import (
    Code,
    EvaluateRes,
    FitRes,
    Parameters,
    Status,
    ndarrays_to_parameters,
)
from flmq.observe.events import ClientOutcome, RoundCounts
from flmq.round import Outcome
from flmq.server.client_proxy import ClientProxy
from flmq.server.lifecycle.run_folder import JobChanged
from flmq.server.strategy import LateFitRes, LateReplies
from flmq.server.strategy.late import merged
from flmq.wire import Failure, FailureKind, ReceiptOutcome, Task
from tests.end_to_end.federation import (
    OK,
    Federation,
    Peer,
    fed_avg,
    fit_res,
)
from tests.server.proxies import IdleProxy
from tests.server.replies.late_scene import (
    CLIENTS,
    Scene,
    Seeing,
    answer,
    model_of,
    parameters_of,
    receipt,
    seeing,
    streaming,
)


@pytest.mark.parametrize("strategy", [seeing, streaming])
def test_a_late_reply_counts_in_the_round_that_is_open(
    federation: Federation, tmp_path: Path, strategy: Any
) -> None:
    used = strategy()
    scene = Scene.of(federation, tmp_path, used)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    assert a.task().server_round == 2
    answer(a, late, 3.0, num_examples=3)
    told = receipt(a, late)
    assert (told.outcome, told.reason) == (
        ReceiptOutcome.ACCEPTED,
        "accepted late into round 2",
    )
    assert told.late_by_seconds > 0
    answer(b, second, 1.0)
    third = b.task()
    # Exactly the mean of both, weighted by their examples.
    sent, first = model_of(second), model_of(late)
    mean = [
        ((3 * (x + np.float32(3.0)).astype(np.float64) + (y + np.float32(1.0))) / 4).astype(
            np.float32
        )
        for x, y in zip(first, sent, strict=True)
    ]
    assert parameters_of(third).tensors == ndarrays_to_parameters(mean).tensors
    answer(b, third)
    scene.server.history()
    if isinstance(used, Seeing):
        assert used.seen == {1: [("b", None)], 2: [("a", 1), ("b", None)], 3: [("b", None)]}
    rounds = scene.server.watch.rounds()
    assert [r.fit.carried for r in rounds] == [0, 1, 0]
    assert rounds[1].fit == RoundCounts(asked=2, accepted=1, silent=1, carried=1)
    (said,) = [o for o in scene.server.watch.of(ClientOutcome) if o.outcome is Outcome.LATE]
    assert (said.client_id, said.server_round) == ("a", 1)
    assert said.reason.endswith("s after the round closed, counts in round 2")
    rows = scene.fit_rows()
    assert [(r.client_id, r.outcome, r.into, r.times) for r in rows[1].late] == [
        ("a", Outcome.LATE, 2, 1)
    ]
    assert (rows[2].carried, rows[3].carried) == (1, 0)
    assert scene.replays(strategy()) == [True, True, True]


def test_where_no_round_is_open_it_waits_for_the_next(
    federation: Federation, tmp_path: Path
) -> None:
    strategy = seeing(fraction_evaluate=1.0)
    scene = Scene.of(federation, tmp_path, strategy, rounds=2)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    measuring = b.task()  # the first round's training is over, its measuring is not
    answer(a, late, 5.0)
    assert receipt(a, late).reason == "accepted late into round 2"
    assert {each.waits for each in scene.fit_rows()[1].late} == {True}
    _measure(b, measuring)
    answer(b, b.task())
    _measure(b, b.task())
    scene.server.history()
    assert strategy.seen == {1: [("b", None)], 2: [("a", 1), ("b", None)]}
    assert scene.replays(seeing()) == [True, True]


def test_it_counts_too_where_its_round_is_no_longer_in_memory(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With thousands of clients that is so after two rounds, though no server was restarted."""
    monkeypatch.setattr("flmq.round.memory._ASKS", 0)
    strategy = seeing()
    scene = Scene.of(memory_federation, tmp_path, strategy, rounds=4)
    a, b = scene.a, scene.b
    late = a.task()
    for _ in range(3):
        answer(b, b.task())
    last = b.task()
    assert last.server_round == 4
    answer(a, late, 5.0)
    assert receipt(a, late).reason == "accepted late into round 4"
    answer(b, last)
    scene.server.history()
    assert strategy.seen[4] == [("a", 1), ("b", None)]


def _measure(peer: Peer, task: Task) -> None:
    peer.reply(task, EvaluateRes(OK, 1.0, 1, {}))


def test_it_counts_once_however_often_it_comes(federation: Federation, tmp_path: Path) -> None:
    strategy = seeing()
    scene = Scene.of(federation, tmp_path, strategy, rounds=4)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    for _ in range(3):
        answer(a, late, 2.0)
    told = [receipt(a, late).outcome for _ in range(3)]
    assert told == [ReceiptOutcome.ACCEPTED, ReceiptOutcome.DUPLICATE, ReceiptOutcome.DUPLICATE]
    for _ in range(2):
        answer(b, b.task())
    answer(a, late, 2.0)  # its round, and the one that it counts in, are over
    assert receipt(a, late).outcome is ReceiptOutcome.DUPLICATE
    answer(b, b.task())
    scene.server.history()
    carried = [number for number, seen in strategy.seen.items() if ("a", 1) in seen]
    assert carried == [2]
    assert {(r.outcome, r.times) for r in scene.fit_rows()[1].late} == {
        (Outcome.LATE, 1),
        (Outcome.DUPLICATE, 3),
    }
    assert all(scene.replays(seeing()))


def test_a_clients_late_and_present_replies_both_count_the_older_first(
    federation: Federation, tmp_path: Path
) -> None:
    strategy = seeing()
    scene = Scene.of(federation, tmp_path, strategy)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = a.task()
    answer(a, late, 2.0)
    receipt(a, late)
    answer(a, second)
    b.task()
    answer(b, b.task())
    scene.server.history()
    assert strategy.seen[2] == [("a", 1), ("a", None)]
    assert all(scene.replays(seeing()))


def test_strategies_that_do_not_ask_for_it_get_none(federation: Federation, tmp_path: Path) -> None:
    strategy = fed_avg(CLIENTS)
    scene = Scene.of(federation, tmp_path, strategy, rounds=2)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    for _ in range(2):
        answer(a, late, 9.0)
    told = receipt(a, late)
    assert told.outcome is ReceiptOutcome.LATE
    assert told.reason == f"late by {told.late_by_seconds:.1f} s, dropped"
    assert receipt(a, late).outcome is ReceiptOutcome.DUPLICATE
    answer(b, second)
    scene.server.history()
    assert [r.fit.carried for r in scene.server.watch.rounds()] == [0, 0]
    (first, again) = sorted(scene.fit_rows()[1].late, key=lambda each: each.outcome.value)
    assert (first.outcome, first.times, again.outcome, again.times) == (
        Outcome.DUPLICATE,
        1,
        Outcome.LATE,
        1,
    )
    assert (again.into, again.waits, again.seconds) == (None, False, told.late_by_seconds)
    assert all(scene.replays(fed_avg(CLIENTS)))


BAD: dict[str, tuple[Any, str]] = {
    "not a number": (
        lambda task: fit_res(task, lambda tensors: [t * np.float32("nan") for t in tensors]),
        "rejected: tensor 0 holds NaN",
    ),
    "another model": (
        lambda task: fit_res(task, lambda tensors: [t[:1] for t in tensors]),
        "rejected: tensor 0 has shape (1,), the model's has (5,)",
    ),
    "status": (
        lambda task: replace(fit_res(task), status=Status(Code.FIT_NOT_IMPLEMENTED, "no")),
        "failed: FIT_NOT_IMPLEMENTED: no",
    ),
    "failure": (
        lambda task: Failure(FailureKind.EXCEPTION, "ValueError", "no data"),
        "failed: ValueError: no data",
    ),
    "expired": (
        lambda task: Failure(FailureKind.EXPIRED, "Expired", "came to the task 3 s after"),
        "expired: came to the task 3 s after",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_what_would_not_have_counted_in_time_does_not_count_late(
    memory_federation: Federation, tmp_path: Path, bad: str
) -> None:
    make, note = BAD[bad]
    strategy = seeing()
    scene = Scene.of(memory_federation, tmp_path, strategy, rounds=2)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    a.reply(late, make(late))
    told = receipt(a, late)
    assert told.outcome is ReceiptOutcome.LATE
    assert f"dropped: {note}" in told.reason
    answer(b, second)
    scene.server.history()
    assert strategy.seen[2] == [("b", None)]
    (row,) = scene.fit_rows()[1].late
    assert row.note.startswith(note)
    assert row.into is None


def test_what_is_late_to_the_last_round_has_none_to_count_in(
    memory_federation: Federation, tmp_path: Path
) -> None:
    scene = Scene.of(memory_federation, tmp_path, seeing(fraction_evaluate=1.0), rounds=1)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    measuring = b.task()
    answer(a, late)
    assert receipt(a, late).outcome is ReceiptOutcome.LATE
    _measure(b, measuring)
    scene.server.history()
    (row,) = scene.fit_rows()[1].late
    assert (row.into, row.waits) == (None, False)


def test_a_job_without_a_journal_hands_over_too(federation: Federation) -> None:
    strategy = seeing()
    scene = Scene.of(federation, None, strategy, rounds=2)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    for _ in range(2):
        answer(a, late)
    assert receipt(a, late).reason == "accepted late into round 2"
    assert receipt(a, late).outcome is ReceiptOutcome.DUPLICATE
    answer(b, second)
    scene.server.history()
    assert strategy.seen[2] == [("a", 1), ("b", None)]


def test_the_policy_is_part_of_what_a_job_was_begun_with(
    memory_federation: Federation, tmp_path: Path
) -> None:
    memory_federation.serve("a")
    run = memory_federation.run(fed_avg(1), runs_dir=tmp_path, late=LateReplies.NEXT_ROUND)
    run.history()
    with pytest.raises(JobChanged, match="late replies: was next-round, is nothing"):
        memory_federation.run(fed_avg(1), runs_dir=tmp_path).history()


def test_late_results_come_before_their_clients_own(tmp_path: Path) -> None:
    def res(server_round: int | None) -> FitRes:
        if server_round is None:
            return FitRes(OK, Parameters([], ""), 1, {})
        return LateFitRes(OK, Parameters([], ""), 1, {}, server_round)

    def pairs(*those: tuple[str, int | None]) -> list[tuple[ClientProxy, Any]]:
        return [(IdleProxy(cid), res(asked)) for cid, asked in those]

    both = merged(pairs(("a", None), ("c", None)), pairs(("c", 2), ("b", 1), ("c", 1)))
    seen: Sequence[tuple[str, int | None]] = [
        (client.cid, r.server_round if isinstance(r, LateFitRes) else None) for client, r in both
    ]
    assert seen == [("a", None), ("b", 1), ("c", 1), ("c", 2), ("c", None)]
