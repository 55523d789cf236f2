"""The plain view: lines that grep finds and that nothing from outside can break."""

from __future__ import annotations

import io

import pytest

from flmq.cli.view.text import TextView
from flmq.common.typing import Scalar
from flmq.observe.events import (
    BufferChanged,
    BufferedUpdate,
    ClientOutcome,
    ConnectionChanged,
    Note,
    Outcome,
    Phase,
    PhaseOpened,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
)
from flmq.observe.remarks import remark_on
from tests.observe.synthetic import FAILED_IN, ROUNDS, whole_run


def lines_of(*events: RunEvent) -> list[str]:
    stream = io.StringIO()
    with TextView(stream) as view:
        for event in events:
            view(event)
    return stream.getvalue().splitlines()


def test_a_run_gives_one_line_a_round_and_one_for_each_thing_of_note() -> None:
    lines = lines_of(*whole_run())
    assert lines[0] == (
        "run started job=digits-calm-otter strategy=FedAvg rounds=10 "
        "broker=amqp://flmq@127.0.0.1:35673/flmq"
    )
    rounds = [line for line in lines if line.startswith("round ")]
    assert len(rounds) == ROUNDS
    assert rounds[FAILED_IN - 1] == (
        "round 7/10 asked=10 answered=7 failed=1 silent=2 loss=0.454 accuracy=0.943 "
        "seconds=0.9 mb_down=0.03 mb_up=0.03"
    )
    assert "client client-00 late in fit of round 7: 2.1 s after the round closed" in lines
    assert "client client-01 failed in fit of round 7: ValueError: batch of 0 images" in lines
    assert "client client-02 gone: no sign of life for 15 s (8 online)" in lines
    assert "broker connection replies lost: connection reset by peer" in lines
    assert "note killed client-02, client-03" in lines
    assert lines[-1] == (
        "run ended job=digits-calm-otter rounds=10/10 seconds=9.3 loss=0.307 accuracy=0.942"
    )


def test_evaluation_and_a_note_are_on_the_line_of_their_round() -> None:
    closed = RoundClosed(
        2,
        3,
        RoundCounts(asked=3, rejected=3),
        RoundCounts(asked=3, accepted=2, unroutable=1),
        None,
        {},
        1.0,
        0,
        0,
        "no reply could be used",
    )
    (line,) = lines_of(closed)
    assert line == (
        "round 2/3 asked=3 answered=0 failed=0 silent=0 rejected=3 evaluate_asked=3 "
        "evaluate_answered=2 evaluate_failed=0 evaluate_silent=0 evaluate_unroutable=1 loss=- "
        "seconds=1.0 mb_down=0.00 mb_up=0.00 note=no reply could be used"
    )


def test_what_was_carried_and_what_was_lost_on_the_way_are_on_the_line() -> None:
    fit = RoundCounts(asked=3, accepted=2, silent=1, carried=1)
    closed = RoundClosed(2, 3, fit, RoundCounts(), None, {}, 1.0, 0, 0, "", 2, 7)
    ended = RunEnded("mnist", 3, 2.0, incomplete_uploads=2, stray_chunks=7)
    for line in lines_of(closed, ended):
        assert "incomplete_uploads=2 stray_chunks=7" in line
    assert "silent=1 carried=1 " in lines_of(closed)[0]
    remark = remark_on(closed)
    assert remark is not None
    assert remark.text == "round 2: 2 incomplete uploads were discarded"


def test_the_error_that_ended_a_run_is_on_its_last_line() -> None:
    (line,) = lines_of(RunEnded("mnist", 1, 2.0, "NotEnoughClients: 3 are needed"))
    assert line.endswith("loss=- error=NotEnoughClients: 3 are needed")


def test_text_from_outside_stays_on_its_line() -> None:
    (line,) = lines_of(ClientOutcome(1, Phase.FIT, "a", Outcome.FAILED, "one\nround 9/9 asked=9"))
    assert line == "client a failed in fit of round 1: one round 9/9 asked=9"


def test_every_measure_is_on_the_line_of_its_round_and_on_the_last() -> None:
    closed = RoundClosed(
        1,
        1,
        RoundCounts(),
        RoundCounts(),
        0.5,
        {"f1": 0.25, "accuracy": 0.75, "n": 3, "ok": True, "why": "it\nis", "raw": b"abc"},
        1.0,
        0,
        0,
        fit_metrics={"loss": 2e-7},
        evaluate_loss=0.625,
        evaluate_metrics={"f1": 0.375},
    )
    measured = (
        "loss=0.500 accuracy=0.750 f1=0.250 n=3 ok=true raw=3_bytes why=it_is "
        "evaluate_loss=0.625 evaluate_f1=0.375 fit_loss=2.00e-07"
    )
    first, last = lines_of(closed, RunEnded("j", 1, 1.0, None, 0.5, {"f1": 0.25}))
    assert measured in first
    assert measured in last


def test_of_a_great_many_measures_the_others_are_counted() -> None:
    metrics: dict[str, Scalar] = {f"m{at:03}": at for at in range(100)}
    (line,) = lines_of(RoundClosed(1, 1, RoundCounts(), RoundCounts(), None, metrics, 1.0, 0, 0))
    assert "loss=- m000=0 m001=1 " in line
    assert "m022=22 more_metrics=77 seconds=" in line


@pytest.mark.parametrize("outcome", [each for each in Outcome if each is not Outcome.ACCEPTED])
def test_every_outcome_but_acceptance_is_remarked(outcome: Outcome) -> None:
    remark = remark_on(ClientOutcome(4, Phase.EVALUATE, "bob", outcome))
    assert remark is not None
    assert (remark.text, remark.good) == (f"bob {outcome.value} in evaluate of round 4", False)


def test_what_is_ordinary_is_not_remarked() -> None:
    assert remark_on(ClientOutcome(4, Phase.FIT, "bob", Outcome.ACCEPTED)) is None
    assert remark_on(PhaseOpened(4, Phase.FIT, ("bob",), None)) is None


def test_a_connection_is_news_when_it_breaks_and_when_it_is_back_but_not_at_first() -> None:
    states = ["connected", "lost", "lost", "connected", "blocked", "connected", "closed"]
    lines = lines_of(*(ConnectionChanged("consumer", state, "") for state in states))
    told = ["lost", "lost", "connected", "blocked", "connected"]
    assert lines == [f"broker connection consumer {state}" for state in told]


def test_connections_are_told_apart() -> None:
    changes = [("consumer", "lost"), ("publisher", "connected"), ("consumer", "connected")]
    lines = lines_of(*(ConnectionChanged(role, state, "") for role, state in changes))
    assert lines == ["broker connection consumer lost", "broker connection consumer connected"]


def test_each_line_is_flushed_as_it_is_written() -> None:
    class Counting(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed += 1

    stream = Counting()
    view = TextView(stream)
    view(Note("one"))
    view(Note("two"))
    assert stream.flushed == 2


def test_a_step_of_a_run_without_rounds_says_whose_updates_it_has_and_how_many_are_busy() -> None:
    updates = (BufferedUpdate("a", 3, 7, 0, 1.0), BufferedUpdate("b", 1, 8, 9, 0.0))
    counts = RoundCounts(asked=2, accepted=1, rejected=1)
    step = RoundClosed(3, 9, counts, RoundCounts(), None, {}, 0.1, 0, 0, buffer=updates)
    line = lines_of(BufferChanged(3, 1, updates, ("c", "d"), ()), step)[-1]
    assert "busy=2 buffer=a:0,b:9:dropped" in line
