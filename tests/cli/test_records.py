"""What commands give to programs and spreadsheets, leave unsaid, and offer to shells."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from flmq.broker import persistent_nodes
from flmq.cli.exit_codes import ExitCode
from flmq.cli.main import app
from flmq.common.environment import LOG_FORMAT
from flmq.observe.record import load_record, save_record
from flmq.observe.recorder import RunRecorder
from tests.journal.runs import begun
from tests.journal.test_parts import ODD, played
from tests.observe.synthetic import JOB, ROUNDS, whole_run
from tests.processes import environment

BIN = Path(sys.executable).parent
HOSTILE = "=cmd|'/c calc'!A1"


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what commands set for their process undone."""
    for name in (LOG_FORMAT, "FLMQ_VERBOSITY", "FLMQ_DEBUG"):
        monkeypatch.setenv(name, "")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """A run with a journal, "digits", one without, and a copy of it with hostile names."""
    journal = begun(tmp_path / "digits")
    for number in (1, 2, 3):
        played(journal, number, ODD)
    journal.close()
    recorder = RunRecorder(tmp_path)
    for event in whole_run():
        recorder(event)
    record = load_record(tmp_path / JOB)
    first = record.rounds[0]
    outcomes = (
        replace(first.outcomes[0], client_id=HOSTILE, reason="@SUM(1)", metrics={HOSTILE: 1.0}),
        *first.outcomes[1:],
    )
    rounds = (
        replace(first, metrics={**first.metrics, HOSTILE: 2.5, "text": "+1"}, outcomes=outcomes),
        *record.rounds[1:4],
        replace(record.rounds[4], loss=9.5, outcomes=(), outcomes_left_out=10),
        *record.rounds[5:8],
    )
    save_record(replace(record, job="other", rounds=rounds), tmp_path / "other" / "history.json")
    return tmp_path


def ran(runs: Path, *words: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["runs", "--runs-dir", str(runs), *words], env={"COLUMNS": "80"})
    assert done.exit_code == status, done.output
    return done.stdout


def test_the_list_of_runs_is_one_json_document(runs: Path) -> None:
    told = json.loads(ran(runs, "--json"))
    assert [(each["job"], each["state"], each["rounds"], each["journal"]) for each in told] == [
        ("digits", "unfinished", 3, True)
        if each["journal"]
        else (each["job"], "finished", {JOB: ROUNDS, "other": 8}[each["job"]], False)
        for each in told
    ]
    assert {each["job"] for each in told} == {"digits", JOB, "other"}
    assert json.loads(ran(runs / "nothing", "--json")) == []


def test_a_run_is_shown_as_its_record_with_the_parts_of_its_journal(runs: Path) -> None:
    assert json.loads(ran(runs, "show", JOB, "--json")) == json.loads(
        (runs / JOB / "history.json").read_text(encoding="utf-8")
    )
    told = json.loads(ran(runs, "show", "digits", "--json"))
    assert [len(each["outcomes"]) for each in told["rounds"]] == [len(ODD)] * 3
    assert told["rounds"][0]["outcomes"][0]["times"]["worker"]["deliveries"] == 1
    assert "10 outcomes of clients are left out" in ran(runs, "show", "other")


@pytest.mark.parametrize(
    "words", [("show", "nix", "--json"), ("compare", JOB, "nix", "--json"), ("--json", "show", JOB)]
)
def test_an_error_is_a_line_of_the_log_for_programs(runs: Path, words: tuple[str, ...]) -> None:
    done = subprocess.run(
        [BIN / "flmq", "runs", "--runs-dir", str(runs), *words],
        capture_output=True,
        text=True,
        env=environment(""),
        check=False,
    )
    assert (done.returncode, done.stdout) == (ExitCode.USAGE, "")
    (line,) = done.stderr.splitlines()
    assert json.loads(line)["level"] == "CRITICAL"


def test_a_node_that_is_down_is_said_to_be_as_json_with_the_same_status(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    down = persistent_nodes.StandingStatus("default", None, False, "", "")
    monkeypatch.setattr(persistent_nodes, "status", lambda name: down)
    done = CliRunner().invoke(app, ["broker", "status", "--json"])
    assert done.exit_code == ExitCode.CHECK_FAILED
    told = json.loads(done.stdout)
    assert (told["running"], told["url"], told["trouble"]) == (False, None, None)


def table(path: Path) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rounds_and_parts_are_written_as_tables(runs: Path, tmp_path: Path) -> None:
    ran(runs, "export", "digits", "--csv")
    rounds, parts = table(runs / "digits" / "rounds.csv"), table(runs / "digits" / "parts.csv")
    assert [(each["round"], each["fit_accepted"]) for each in rounds] == [
        ("1", "5"),
        ("2", "5"),
        ("3", "5"),
    ]
    assert len(parts) == 3 * len(ODD)
    first, failed = parts[0], parts[3]
    assert (first["client"], first["outcome"], first["examples"]) == ("a", "accepted", "100")
    assert ODD[0].times is not None
    assert int(first["training_started_ms"]) == ODD[0].times.training_started_ms
    assert json.loads(first["metrics"]) == ODD[0].metrics
    assert (failed["outcome"], failed["reason"]) == ("failed", "ValueError: no")


def test_names_that_spreadsheets_take_for_formulas_are_defused(runs: Path, tmp_path: Path) -> None:
    said = ran(runs, "export", "other", "--csv", "--to", str(tmp_path / "tables"))
    assert "10 parts" not in said  # that is beside the results
    rounds, parts = (
        table(tmp_path / "tables" / "rounds.csv"),
        table(tmp_path / "tables" / "parts.csv"),
    )
    assert rounds[0]["'" + HOSTILE.replace(" ", "_")] == "2.5"
    assert rounds[0]["text"] == "'+1"
    assert (parts[0]["client"], parts[0]["reason"]) == ("'" + HOSTILE, "'@SUM(1)")
    for row in (*rounds, *parts):
        for cell in (*row, *row.values()):
            assert not cell.startswith(("=", "+", "@"))
    assert "--csv is of all rounds" in str(
        CliRunner()
        .invoke(app, ["runs", "--runs-dir", str(runs), "export", JOB, "--csv", "--round", "1"])
        .exception
    )


def test_runs_are_compared_for_people_and_for_programs(runs: Path) -> None:
    said = ran(runs, "compare", JOB, "other", "digits")
    assert "other measurements from round 1 on" in said
    assert "rounds after 3 are not in all of them" in said
    assert "the models have the same bits is not known" in said
    assert max(map(len, said.splitlines()[:4])) <= 80
    told = json.loads(ran(runs, "compare", JOB, "other", "--json"))
    assert (told["first_measures"], told["first_model"]) == (1, None)
    assert told["first_clients"]["server_round"] == 1
    assert [each["sides"][1] is None for each in told["rounds"]] == [False] * 8 + [True] * 2
    with_itself = ran(runs, "compare", JOB, JOB)
    assert "other" not in with_itself


def test_a_quiet_command_says_its_results_alone(runs: Path) -> None:
    nothing = ["--runs-dir", str(runs / "none")]
    assert "no runs in" in CliRunner().invoke(app, ["runs", *nothing]).stderr
    for words in (["--quiet", "runs"], ["runs", "--quiet"]):
        done = CliRunner().invoke(app, [*words, *nothing])
        assert (done.exit_code, done.output) == (0, "")


def test_every_command_takes_both_words_and_not_together(runs: Path) -> None:
    for command in ("server", "client", "demo", "doctor", "aggregate"):
        helped = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200"}).output
        assert "--quiet" in helped, command
        assert "--verbose" in helped, command
    done = CliRunner().invoke(app, ["--quiet", "runs", "--verbose"])
    assert "contradict each other" in str(done.exception)


def test_bash_completes_the_names_of_jobs(runs: Path, tmp_path: Path) -> None:
    (runs / "$(touch pwned)").mkdir()
    (runs / "$(touch pwned)" / "history.json").touch()
    (runs / "no-run").mkdir()
    bash = shutil.which("bash")
    assert bash is not None
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(tmp_path / "home")}
    del env[LOG_FORMAT]
    script = f"""
eval "$(flmq --show-completion bash)"
complete -p flmq >&2
COMP_WORDS=(flmq runs --runs-dir {runs} $1 "$2"); COMP_CWORD=5
_flmq_completion flmq "$2" "$1"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""

    def offered(*words: str) -> list[str]:
        done = subprocess.run(
            [bash, "-c", script, "bash", *words],
            capture_output=True,
            text=True,
            env={**env, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
            cwd=tmp_path,
            check=True,
        )
        return sorted(done.stdout.split("\n")[:-1])

    assert offered("show", "") == sorted(["digits", JOB, "other"])
    assert offered("export", "digits-") == [JOB]
    assert offered("compare", "o") == ["other"]
    assert not (tmp_path / "pwned").exists()


def test_a_verbose_command_writes_its_log_in_place_of_a_view(tmp_path: Path) -> None:
    words = ["demo", "--in-memory", "--rounds", "1", "--clients", "2", "--job", "loud"]
    said = {}
    for how in ("--verbose", "--quiet"):
        done = subprocess.run(
            [BIN / "flmq", *words, how],
            capture_output=True,
            text=True,
            env=environment(""),
            cwd=tmp_path,
            check=True,
        )
        said[how] = done.stdout + done.stderr
    assert "round 1/1" in said["--verbose"]
    assert "INFO" in said["--verbose"]
    assert said["--quiet"] == ""
