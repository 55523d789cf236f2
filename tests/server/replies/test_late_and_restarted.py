"""A server that dies with late replies in hand: each counts once, in the round that it came to."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flmq.journal import LateReply
from flmq.observe.events import PhaseOpened
from flmq.round import Outcome
from flmq.server import ServerConfig
from flmq.server.asks import asks
from flmq.server.options import ResumePolicy
from flmq.server.replies import reply_loop
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.strategy import LateReplies
from flmq.wire import ReceiptOutcome
from tests.dying import Died, dies_at
from tests.end_to_end.federation import (
    Federation,
)
from tests.server.replies.late_scene import (
    KEPT,
    Scene,
    Seeing,
    answer,
    receipt,
    seeing,
    streaming,
)
from tests.transport.rigs import PATIENCE


@pytest.mark.parametrize("strategy", [seeing, streaming])
def test_a_server_that_dies_with_a_late_reply_in_hand_counts_it_once(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    """It is durable and not acked: it comes again, to the server that goes on."""
    scene = Scene.of(federation, tmp_path, strategy())
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    monkeypatch.setattr(reply_loop, "crash_point", dies_at("server.late_journalled"))
    answer(a, late, 3.0)
    with pytest.raises(Died):
        scene.server.history()
    monkeypatch.undo()
    used = strategy()
    scene.again(used)
    assert receipt(a, late).outcome is ReceiptOutcome.DUPLICATE  # as it was not acked
    again = b.task()
    assert again.task_id == second.task_id
    answer(b, again)
    third = b.task()
    assert third.server_round == 3
    answer(b, third)
    scene.server.history()
    if isinstance(used, Seeing):
        assert used.seen[2] == [("a", 1), ("b", None)]
    rows = scene.fit_rows()
    assert rows[2].carried == 1
    assert LateReply("a", Outcome.LATE, rows[1].late[0].seconds, 1, into=2) in [
        replace(each, seconds=rows[1].late[0].seconds) for each in rows[1].late
    ]
    assert scene.replays(strategy()) == [True, True, True]


@pytest.mark.parametrize("strategy", [seeing, streaming])
def test_a_closing_set_is_final_whatever_the_policy_has_become(
    memory_federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, strategy: Any
) -> None:
    scene = Scene.of(memory_federation, tmp_path, strategy(), rounds=2)
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    answer(a, late, 3.0)
    assert receipt(a, late).reason == "accepted late into round 2"
    monkeypatch.setattr(asks, "crash_point", dies_at("server.phase_closed"))
    answer(b, second)
    with pytest.raises(Died):
        scene.server.history()
    monkeypatch.undo()
    used = strategy()
    memory_federation.run(
        used,
        config=ServerConfig(num_rounds=2, round_timeout=None, target_results=1),
        runs_dir=tmp_path,
        keep=KEPT,
        late=LateReplies.DROP,
        resume=ResumePolicy.ANYWAY,
    ).history()
    if isinstance(used, Seeing):
        assert used.seen == {2: [("a", 1), ("b", None)]}
    assert scene.fit_rows()[2].carried == 1
    assert scene.replays(strategy()) == [True, True]


@pytest.mark.parametrize("dies", [False, True])
def test_nothing_is_late_before_the_closing_set_is_durable(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dies: bool
) -> None:
    """Until then another server could still count it in its own round."""
    held = threading.Event()
    close_phase = JobJournal.close_phase

    def held_up(job_journal: JobJournal, *arguments: Any) -> None:
        assert held.wait(PATIENCE)
        if dies:
            raise Died("killed")
        close_phase(job_journal, *arguments)

    monkeypatch.setattr(JobJournal, "close_phase", held_up)
    strategy = seeing()
    scene = Scene.of(federation, tmp_path, strategy, rounds=2)
    a, b = scene.a, scene.b
    late, first = a.task(), b.task()
    answer(b, first)
    receipt(b, first)  # the round has closed, but for its record
    answer(a, late)
    answer(b, first)
    assert receipt(b, first).outcome is ReceiptOutcome.DUPLICATE  # what came after it is dealt with
    assert [(each.client_id, each.outcome) for each in scene.fit_rows()[1].late] == [
        ("b", Outcome.DUPLICATE)
    ]
    held.set()
    if dies:
        with pytest.raises(Died):
            scene.server.history()
        monkeypatch.undo()
        strategy = seeing()
        scene.again(strategy)
    assert receipt(a, late).reason == "accepted late into round 2"
    while (second := b.task()).server_round != 2:
        pass
    answer(b, second)
    scene.server.history()
    assert strategy.seen == {1: [("b", None)], 2: [("a", 1), ("b", None)]}
    assert scene.replays(seeing()) == [True, True]


def test_a_reply_to_a_round_of_a_server_before_is_late_by_its_clock(
    federation: Federation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server that hears it never asked for it: it knows the task by its journal."""
    scene = Scene.of(federation, tmp_path, seeing())
    a, b = scene.a, scene.b
    late = a.task()
    answer(b, b.task())
    second = b.task()
    monkeypatch.setattr(reply_loop, "crash_point", dies_at("server.reply_journalled"))
    answer(b, second)
    with pytest.raises(Died):
        scene.server.history()
    monkeypatch.undo()
    strategy = seeing()
    answer(a, late, 4.0)  # while nobody is in charge
    scene.again(strategy)
    told = receipt(a, late)
    assert told.reason in ("accepted late into round 2", "accepted late into round 3")
    assert told.late_by_seconds > 0
    scene.server.watch.wait_for(PhaseOpened, lambda opened: opened.server_round == 3)
    while (third := b.task()).server_round != 3:
        pass
    answer(b, third)
    scene.server.history()
    into = int(told.reason.split()[-1])
    assert strategy.seen[into] == [("a", 1), ("b", None)]
    (row,) = scene.fit_rows()[1].late
    assert (row.outcome, row.into) == (Outcome.LATE, into)
    assert row.seconds == pytest.approx(told.late_by_seconds, abs=0.5)
    assert all(scene.replays(seeing()))
