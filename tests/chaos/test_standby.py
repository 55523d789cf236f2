"""Two processes for one job, or for one client id: one works, the other takes over."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from flmq.cli.exit_codes import ExitCode
from tests.chaos.program import Variant
from tests.chaos.run import JOB, Run, client_command, play, server_command, until, until_over
from tests.chaos.schedule import SERVER, Schedule
from tests.chaos.stage import Stage
from tests.chaos.supervisor import Supervisor
from tests.chaos.verdict import check

_TAKE_OVER_SECONDS = 10.0
_PATIENCE = 120.0


def _begun(run: Run, trainings: int) -> Callable[[], bool]:
    return lambda: len(run.begun()) >= trainings


def _second_server(supervisor: Supervisor, run: Run) -> None:
    """Start it, and see it stand by."""
    supervisor.start("second", server_command(run.schedule, run.runs_dir))
    log = run.runs_dir / JOB / "server.log"
    until(lambda: "standing by" in log.read_text("utf-8"), "the second server stands by")
    until(lambda: "standing by" in supervisor.log("second"), "and says so to who started it")


def _took_over(run: Run) -> Callable[[], bool]:
    log = run.runs_dir / JOB / "server.log"
    return lambda: "this one takes over" in log.read_text("utf-8")


@pytest.mark.parametrize("variant", [Variant.STATEFUL, Variant.BUFFERED])
def test_a_standby_takes_over_within_seconds(
    stage: Stage, tmp_path: Path, variant: Variant
) -> None:
    def script(supervisor: Supervisor, run: Run) -> None:
        until(_begun(run, 3), "everybody trains")
        _second_server(supervisor, run)
        supervisor.kill(SERVER, for_good=True)
        run.gate.touch()
        seconds = until(_took_over(run), "the second server takes over")
        assert seconds < _TAKE_OVER_SECONDS
        until_over(supervisor, run, _PATIENCE, "second")

    schedule = Schedule(1, variant, rounds=2)
    assert check(play(stage, schedule, tmp_path / "run", script=script)) == []


def test_a_server_that_slept_finds_itself_fenced(stage: Stage, tmp_path: Path) -> None:
    """It was paused in the middle of a round, and wakes when another is in charge."""

    def script(supervisor: Supervisor, run: Run) -> None:
        until(_begun(run, 3), "everybody trains")
        _second_server(supervisor, run)
        supervisor.signal(SERVER, signal.SIGSTOP)
        stage.cut()
        until(_took_over(run), "the second server takes over")
        run.gate.touch()
        until(_begun(run, 4), "the second server goes on")
        supervisor.signal(SERVER, signal.SIGCONT)
        supervisor.wait(SERVER, _PATIENCE)
        assert supervisor.exit_status(SERVER) == ExitCode.RUN, supervisor.log(SERVER)
        assert "another server took charge of job chaos" in supervisor.log(SERVER)
        until_over(supervisor, run, _PATIENCE, "second")

    schedule = Schedule(2, Variant.LARGE, rounds=2)
    may_end = {SERVER: (ExitCode.RUN,)}
    run = play(stage, schedule, tmp_path / "run", script=script, may_end=may_end)
    assert check(run) == []


def _second_client(supervisor: Supervisor, run: Run) -> None:
    """Start a process that serves as c1 as well, and see it stand by."""
    supervisor.start("second", client_command(run.schedule, "c1", run.state_dir))
    until(lambda: "standing by" in supervisor.log("second"), "the second client stands by")


def _c1(run: Run) -> int:
    return sum(training.client == "c1" for training, _ in run.begun())


@pytest.mark.parametrize("how", ["killed", "paused"])
def test_a_second_process_of_a_client_takes_over(stage: Stage, tmp_path: Path, how: str) -> None:
    """What the first had in its spool is the second's; one that sleeps and wakes does no harm."""

    def script(supervisor: Supervisor, run: Run) -> None:
        until(lambda: _c1(run) >= 1, "c1 trains")
        _second_client(supervisor, run)
        before = _c1(run)
        if how == "killed":
            supervisor.kill("c1", for_good=True)
        else:
            supervisor.signal("c1", signal.SIGSTOP)
            stage.cut()
        until(lambda: _c1(run) > before, "the second process trains")
        run.gate.touch()
        if how == "paused":
            supervisor.signal("c1", signal.SIGCONT)
        until_over(supervisor, run, _PATIENCE)
        run.lives["c1"] += supervisor.lives("second")

    schedule = Schedule(3, Variant.LARGE, rounds=2)
    run = play(stage, schedule, tmp_path / "run", script=script)
    assert check(run) == []
