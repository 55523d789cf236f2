"""``flmq runs show``: what became of every task, in words."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flmq.cli.runs import OtherStrategy, runs_app
from flmq.journal import Journal, KeepPolicy, LateEntry
from flmq.journal.state import StateValue
from flmq.observe.recorder import RunRecorder
from flmq.round import LateReplyRef, Outcome, TaskOutcome
from tests.journal.runs import answer, begun, closing, end_round, fit, model, plan, task_id
from tests.observe.synthetic import JOB as RECORDED
from tests.observe.synthetic import whole_run

JOB = "digits"
CLIENTS = ("fine", "broken", "wrong", "away", "quiet", "slow", "slower", "expired", "twice")
EXPIRED = "expired: came to the task 6.9 s after"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run of two rounds in which everything happened."""
    journal = begun(tmp_path / JOB)
    _first_round(journal)
    _second_round(journal)
    journal.close()
    return tmp_path


def _first_round(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(CLIENTS))
    outcomes = {
        "fine": TaskOutcome("fine", Outcome.ACCEPTED),
        "twice": TaskOutcome("twice", Outcome.ACCEPTED),
        "broken": TaskOutcome("broken", Outcome.FAILED, "ValueError: no data"),
        "wrong": TaskOutcome("wrong", Outcome.REJECTED, "tensor 0 holds NaN"),
        "away": TaskOutcome("away", Outcome.UNROUTABLE, "no queue on the broker"),
    }
    for client_id in ("fine", "twice", "broken", "wrong"):
        outcome = outcomes[client_id]
        kind, reason = outcome.outcome, outcome.reason
        journal.phases.contribute(fit(1), answer(client_id, kind=kind, reason=reason))
    closed = closing("fine", "twice", silent=("quiet", "slow", "slower", "expired"))
    silent = [each for each in closed.outcomes if each.outcome is Outcome.SILENT]
    journal.phases.close(fit(1), replace(closed, outcomes=(*outcomes.values(), *silent)))
    kept = answer("slow", kind=Outcome.LATE)
    journal.phases.take_in(
        (),
        [
            LateEntry(fit(1), "slow", Outcome.LATE, 3.21, kept=kept),
            LateEntry(fit(1), "slower", Outcome.LATE, 65.0),
            LateEntry(fit(1), "expired", Outcome.LATE, 7.0, EXPIRED),
            *[LateEntry(fit(1), "twice", Outcome.DUPLICATE, 0.0)] * 2,
        ],
    )
    end_round(journal, 1)


def _second_round(journal: Journal) -> None:
    journal.phases.open(fit(2), plan(["fine"], 2))
    journal.phases.contribute(fit(2), answer("fine", 2))
    carried = (LateReplyRef("slow", 1, task_id("slow")),)
    journal.phases.close(fit(2), replace(closing("fine"), carried=carried))


def _shown(runs: Path) -> str:
    done = CliRunner().invoke(
        runs_app, ["--runs-dir", str(runs), "show", JOB], env={"COLUMNS": "200"}
    )
    assert done.exit_code == 0, done.output
    return done.output


def test_every_task_has_its_word(runs: Path) -> None:
    lines = _shown(runs).splitlines()
    assert [line for line in lines if line.startswith("round ") and ":" in line] == [
        "round 1 fit: broken failed: ValueError: no data",
        "round 1 fit: wrong rejected: tensor 0 holds NaN",
        "round 1 fit: away unroutable: no queue on the broker",
        "round 1 fit: quiet no answer: deadline",
        f"round 1 fit: expired {EXPIRED}, reported 7.0 s after the round closed",
        "round 1 fit: slow late by 3.2 s, counts in round 2",
        "round 1 fit: slower late by 65.0 s, dropped",
        "round 1 fit: twice duplicate, 2 times",
        "round 2 fit: 1 late replies of earlier rounds count in it",
    ]


def test_the_words_are_counted_by_round_and_by_client(runs: Path) -> None:
    lines = [line.split() for line in _shown(runs).splitlines()]
    columns = "accepted carried failed rejected late expired no answer unroutable duplicate"
    assert lines[0] == ["round", "phase", "asked", *columns.split(), "loss", "s"]
    # Nobody is counted both as late and as one who did not answer.
    assert lines[1][:12] == ["1", "fit", "9", "2", "0", "1", "1", "2", "1", "1", "1", "2"]
    assert lines[2][:5] == ["2", "fit", "1", "1", "1"]
    clients = {line[0]: line[1:] for line in lines[3:] if line and line[0] in CLIENTS}
    assert clients["slow"] == ["0", "0", "0", "1", "0", "0", "0", "0"]
    assert clients["twice"] == ["1", "0", "0", "0", "0", "0", "0", "2"]


def test_a_reason_is_shown_as_it_was_given_on_one_line(tmp_path: Path) -> None:
    journal = begun(tmp_path / JOB)
    journal.phases.open(fit(1), plan(["a"]))
    reason = "return\n\n    tuple[list[numpy.ndarray], int]\n"
    failed = TaskOutcome("a", Outcome.FAILED, reason)
    journal.phases.contribute(fit(1), answer("a", kind=Outcome.FAILED, reason=reason))
    journal.phases.close(fit(1), replace(closing(), outcomes=(failed,)))
    journal.close()
    assert "fit: a failed: return tuple[list[numpy.ndarray], int]\n" in _shown(tmp_path)


def test_runs_are_listed_by_the_names_that_they_are_shown_by(runs: Path) -> None:
    (runs / JOB).rename(runs / f"{JOB}.20260101-000000")
    begun(runs / JOB).close()
    listed = CliRunner().invoke(runs_app, ["--runs-dir", str(runs)]).output
    names = {line.split()[0] for line in listed.splitlines()[1:]}
    assert names == {JOB, f"{JOB}.20260101-000000"}


def test_a_replay_with_the_wrong_strategy_says_how_to_name_it(tmp_path: Path) -> None:
    journal = begun(tmp_path / JOB)
    journal.keep(KeepPolicy(replies="all"))
    journal.phases.open(fit(1), replace(plan(["a"]), state={"velocity": 1.0}))
    journal.phases.contribute(fit(1), answer("a"))
    journal.phases.close(fit(1), closing("a"))
    journal.checkpoint(1, model(1), {}, {}, {"model": "digest"})
    journal.close()
    done = CliRunner().invoke(runs_app, ["--runs-dir", str(tmp_path), "replay", JOB])
    assert isinstance(done.exception, OtherStrategy), done.output
    assert "--app app:server" in str(done.exception)


def test_what_waits_says_so(tmp_path: Path) -> None:
    journal = begun(tmp_path / JOB)
    journal.phases.open(fit(1), plan(["slow"]))
    journal.phases.close(fit(1), closing(silent=["slow"]))
    kept = answer("slow", kind=Outcome.LATE)
    journal.phases.take_in((), [LateEntry(fit(1), "slow", Outcome.LATE, 1.0, kept=kept)])
    journal.close()
    assert "round 1 fit: slow late by 1.0 s, waits for the next round" in _shown(tmp_path)


def recorded_in_memory(folder: Path) -> None:
    recorder = RunRecorder(folder)
    for event in whole_run(4):
        recorder(event)
    (folder / RECORDED / "model.npz").write_bytes(b"a model")


def test_a_run_without_a_journal_is_listed_and_shown_from_its_record(runs: Path) -> None:
    recorded_in_memory(runs)
    listed = CliRunner().invoke(runs_app, ["--runs-dir", str(runs)], env={"COLUMNS": "120"})
    assert listed.exit_code == 0, listed.output
    (line,) = (line for line in listed.output.splitlines() if line.startswith(RECORDED))
    assert line.split()[1:3] == ["finished", "10"]
    assert "no journal" in line
    assert any(line.startswith(JOB) for line in listed.output.splitlines())
    shown = CliRunner().invoke(runs_app, ["--runs-dir", str(runs), "show", RECORDED])
    assert shown.exit_code == 0, shown.output
    assert "round 7 fit: client-01 failed: ValueError: batch of 0 images" in shown.output
    assert "0.948" in shown.output
    assert shown.output.splitlines()[-1].endswith("model.npz")


def test_what_was_measured_is_shown_in_tables_that_fit(tmp_path: Path) -> None:
    journal = begun(tmp_path / JOB)
    names = [f"metric_{at:02}" for at in range(12)]
    summary: dict[str, StateValue] = {
        "metrics": dict.fromkeys(names, 0.5),
        "fit_metrics": {"loss": 0.25},
        "evaluate_loss": 0.75,
    }
    journal.checkpoint(1, model(1), history={}, state={}, summary=summary)
    journal.close()
    (tmp_path / JOB / "model.npz").write_bytes(b"a model")
    result = CliRunner().invoke(
        runs_app, ["--runs-dir", str(tmp_path), "show", JOB], env={"COLUMNS": "60"}
    )
    lines = result.output.splitlines()
    for name in (*names, "fit_loss", "evaluate_loss"):
        assert sum(name in line for line in lines) == 1
    assert max(map(len, (line for line in lines if "metric" in line))) <= 60
    assert lines[-1] == f"final model: {tmp_path / JOB / 'model.npz'}"
    assert ".blob" not in result.output


def test_no_words_of_a_client_steer_the_terminal(tmp_path: Path) -> None:
    journal = begun(tmp_path / JOB)
    journal.phases.open(fit(1), plan(("a",)))
    reason = "no\x1b[2J\x1b]0;owned\x07\u202e data"
    journal.phases.contribute(fit(1), answer("a", kind=Outcome.FAILED, reason=reason))
    closed = replace(closing(), outcomes=(TaskOutcome("a", Outcome.FAILED, reason),))
    journal.phases.close(fit(1), closed)
    end_round(journal, 1)
    journal.close()
    result = CliRunner().invoke(runs_app, ["--runs-dir", str(tmp_path), "show", JOB])
    assert "a failed: no" in result.output
    assert not any(each in result.output for each in "\x1b\x07\u202e")
