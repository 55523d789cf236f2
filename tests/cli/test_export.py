"""``flmq runs export``, the files that a server leaves, and models to begin from."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from safetensors import safe_open
from typer.testing import CliRunner

from flmq.cli.export import NoSuchRound, NoSuchRun, NotExported
from flmq.cli.model import ModelSaver
from flmq.cli.runs import runs_app
from flmq.cli.server import InsteadOfApp
from flmq.common import (
    Parameters,
    load_parameters,
    ndarrays_to_parameters,
    parameters_to_ndarrays,
    save_parameters,
)
from flmq.common.model_files import ModelNotWritable, UnreadableModelFile
from flmq.common.phase import Phase
from flmq.journal import KeepPolicy, LateEntry
from flmq.observe.events import ClientOutcome, RunEnded
from flmq.observe.recorder import RunRecorder
from flmq.round import LateReplyRef, Outcome, TaskOutcome
from flmq.server import History, ServerAppComponents
from flmq.wire import refer
from tests.journal.runs import answer, begun, closing, fit, plan, task_id
from tests.observe.synthetic import JOB as RECORDED
from tests.observe.synthetic import whole_run

JOB = "digits"
NAMES = ("fc.weight", "steps")


def named(number: int) -> Parameters:
    return ndarrays_to_parameters([np.full(3, number, np.float32), np.arange(2)], NAMES)


def exported(runs: Path, job: str, *words: str) -> Result:
    return CliRunner().invoke(runs_app, ["--runs-dir", str(runs), "export", job, *words])


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, framework="np") as file:
        said: dict[str, str] = file.metadata()
    return said


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three rounds, whose last one changed nothing; all models are kept."""
    journal = begun(tmp_path / JOB)
    journal.keep(KeepPolicy(every=1))
    history = History()
    closed = [
        closing("alice", "bob", silent=["carol"]),
        replace(closing("alice", "bob"), carried=(LateReplyRef("carol", 1, task_id("carol")),)),
        replace(closing(), outcomes=(TaskOutcome("alice", Outcome.REJECTED, "no"),)),
    ]
    for number, (closes, model) in enumerate(zip(closed, (1, 2, 2), strict=True), start=1):
        asked = [each.client_id for each in closes.outcomes]
        journal.phases.open(fit(number), plan(asked, number))
        for each in closes.outcomes:
            if each.outcome is not Outcome.SILENT:
                kind = each.outcome
                journal.phases.contribute(fit(number), answer(each.client_id, number, kind=kind))
        journal.phases.close(fit(number), closes)
        if number == 1:
            kept = answer("carol", kind=Outcome.LATE)
            journal.phases.take_in((), [LateEntry(fit(1), "carol", Outcome.LATE, 3.0, kept=kept)])
        history.add_loss_distributed(number, 1 / number)
        history.add_metrics_distributed_fit(number, {"=cmd()": "@x\n", "examples": 5})
        history.add_loss_centralized(number, float("nan"))
        ref = journal.put_parameters(named(model))
        journal.checkpoint(
            number, named(model), history.to_dict(), {}, {"model": ref.digest, "loss": 1 / number}
        )
    journal.close()
    return tmp_path


@pytest.mark.parametrize("ending", [".npz", ".safetensors"])
def test_a_rounds_model(runs: Path, ending: str) -> None:
    to = runs / f"out{ending}"
    done = exported(runs, JOB, "--round", "1", "--to", str(to))
    assert (done.exit_code, done.output) == (0, f"written: {to}\n")
    assert load_parameters(to) == named(1)
    assert exported(runs, JOB, "--to", str(to)).exit_code == 0
    assert load_parameters(to) == named(2)


def test_a_safetensors_file_says_where_its_model_comes_from(runs: Path) -> None:
    exported(runs, JOB, "--to", str(runs / "out.safetensors"))
    said = metadata(runs / "out.safetensors")
    assert (said["flmq.job"], said["flmq.round"]) == (JOB, "2")  # the third changed nothing
    assert said["flmq.digest"] == refer(named(2)).digest
    assert json.loads(said["flmq.closing_set"]) == ["alice", "bob", "carol@1"]


def test_what_was_measured(runs: Path) -> None:
    assert exported(runs, JOB, "--to", str(runs / "out.csv")).exit_code == 0
    lines = (runs / "out.csv").read_text().splitlines()
    assert lines[0] == "round,measured,name,value"
    assert lines[1:5] == [
        "1,evaluate,loss,1.0",
        "1,fit,'=cmd(),'@x",  # no formula of a client runs in a spreadsheet
        "1,fit,examples,5",
        "1,server,loss,nan",
    ]
    assert "3,evaluate,loss,0.3333333333333333" in lines


def test_a_run_without_a_journal(tmp_path: Path) -> None:
    recorder = RunRecorder(tmp_path)
    for event in whole_run(4):
        recorder(event)
    to = tmp_path / "out.safetensors"
    assert isinstance(exported(tmp_path, RECORDED, "--to", str(to)).exception, NoSuchRound)
    save_parameters(named(1), tmp_path / RECORDED / "model.npz")
    for words in ([], ["--round", "10"]):
        assert exported(tmp_path, RECORDED, *words, "--to", str(to)).exit_code == 0
    assert load_parameters(to) == named(1)
    assert metadata(to)["flmq.round"] == "10"
    assert "client-00" in json.loads(metadata(to)["flmq.closing_set"])
    other = exported(tmp_path, RECORDED, "--round", "3", "--to", str(to))
    assert "no model of round 3: those of rounds 10 are there" in str(other.exception)
    assert exported(tmp_path, RECORDED, "--to", str(tmp_path / "out.csv")).exit_code == 0
    assert len((tmp_path / "out.csv").read_text().splitlines()) > 20


@pytest.mark.parametrize(
    ("words", "error", "said"),
    [
        (["other", "--to", "x.npz"], NoSuchRun, "there is no run 'other' in"),
        (
            [JOB, "--round", "9", "--to", "x.npz"],
            NoSuchRound,
            "job 'digits' keeps no model of round 9: those of rounds 1, 2, 3 are there",
        ),
        ([JOB, "--to", "x.pt"], ModelNotWritable, "x.pt is not written: give a file that ends"),
        ([JOB, "--to", "x.csv", "--round", "1"], NotExported, "a .csv holds all rounds"),
    ],
)
def test_errors_say_what_there_is(
    runs: Path, words: list[str], error: type[Exception], said: str, monkeypatch: Any
) -> None:
    monkeypatch.chdir(runs)
    done = exported(runs, *words)
    assert type(done.exception) is error
    assert said in str(done.exception)


@pytest.mark.parametrize("name", ["x.npz", "x.csv"])
def test_a_file_that_cannot_be_written(runs: Path, name: str) -> None:
    (runs / "file").write_text("")
    done = exported(runs, JOB, "--to", str(runs / "file" / name))
    assert isinstance(done.exception, NotExported)
    assert "cannot be written: " in str(done.exception)


# -- at the end of a run ------------------------------------------------------------------------


def test_the_final_model_without_a_journal(tmp_path: Path) -> None:
    saver = ModelSaver(tmp_path / RECORDED)
    for event in whole_run(4):
        if not isinstance(event, RunEnded):
            saver(event)
            continue
        saver(replace(event, parameters=named(3)))
        last = event.rounds
    assert load_parameters(tmp_path / RECORDED / "model.npz") == named(3)
    said = metadata(tmp_path / RECORDED / "model.safetensors")
    assert said["flmq.round"] == str(last)
    assert json.loads(said["flmq.closing_set"]) == sorted(
        event.client_id
        for event in whole_run(4)
        if isinstance(event, ClientOutcome)
        and (event.server_round, event.phase, event.outcome) == (last, Phase.FIT, Outcome.ACCEPTED)
    )


def test_a_model_that_safetensors_lacks_is_only_an_npz(tmp_path: Path, caplog: Any) -> None:
    odd = ndarrays_to_parameters([np.ones(2, complex)], ["w"])
    ModelSaver(tmp_path)(RunEnded(JOB, 1, 1.0, parameters=odd))
    assert [path.name for path in tmp_path.iterdir()] == ["model.npz"]
    (line,) = caplog.messages
    assert line.endswith(
        "model.safetensors is not written: tensor w is complex128, and safetensors has no such "
        "tensors"
    )


# -- to begin from ------------------------------------------------------------------------------


def test_a_server_begins_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_parameters(named(4), path)
    parts = InsteadOfApp(initial=path).adjusted(ServerAppComponents())
    assert parts.initial_parameters is not None
    assert parts.initial_parameters.names == NAMES
    np.testing.assert_array_equal(parameters_to_ndarrays(parts.initial_parameters)[0], [4, 4, 4])
    path.write_bytes(b"\x80\x04.")
    with pytest.raises(UnreadableModelFile):
        InsteadOfApp(initial=path).adjusted(ServerAppComponents())
