"""A task that kills its client, under a supervisor that starts it again and again."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.end_to_end.test_processes import SLOW, Processes
from tests.transport.rigs import eventually

APP = "tests.end_to_end.deadly_app"


@pytest.fixture
def processes(broker_url: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(broker_url, tmp_path)
    yield made
    made.end()


class Supervisor(threading.Thread):
    """Starts a command again whenever it is killed, until it ends otherwise."""

    def __init__(self, processes: Processes, *command: str) -> None:
        super().__init__(daemon=True)
        self.processes = processes
        self.command = command
        self.lives: list[subprocess.Popen[bytes]] = []
        self.start()

    def run(self) -> None:
        while True:
            process = self.processes.run(*self.command)
            self.lives.append(process)
            if process.wait() >= 0 or len(self.lives) > 10:
                return


@pytest.mark.parametrize(
    ("options", "deaths"),
    [(("--state-dir=state",), 3), ((), 3), (("--state-dir=state", "--ack=result"), 1)],
    ids=["spool", "no folder", "folder and no spool"],
)
def test_a_task_that_kills_its_client_is_failed_and_the_next_is_served(
    processes: Processes, options: tuple[str, ...], deaths: int
) -> None:
    most = () if deaths == 3 else (f"--max-deaths={deaths}",)
    command = ("client", f"{APP}:client", "--once", "--standby", *options)
    bad = Supervisor(processes, *command, "--client-id=bad", *most)
    good = processes.run(*command, "--client-id=good")
    server = processes.run("server", f"{APP}:server", "--job=deadly")
    processes.ends(server)
    processes.ends(good)
    eventually(lambda: not bad.is_alive(), SLOW)
    assert len(bad.lives) == deaths + 1
    assert bad.lives[-1].returncode == 0
    assert [len(processes.trainings("bad", number)) for number in (1, 2)] == [deaths, 1]
    shown = subprocess.run(
        [sys.executable, "-m", "flmq", "runs", "show", "deadly"],
        cwd=processes.folder,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert f"its client died {deaths} times in it" in " ".join(shown.split())
    assert list((processes.folder / "state").glob("*/begun/*")) == []
