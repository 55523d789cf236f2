"""A real run with kills: real processes over a private RabbitMQ, as `story_app` has it.

Round 2: the broker is restarted. Round 4: a client is killed in its training, and trains again.
Round 6: the server is killed by SIGKILL and resumed. Round 7: a client is slow. Round 9: a client
is killed and comes back only after the deadline, so that the round has one reply less.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from tests.processes import Commands
from tests.ui.story_app import CLIENTS, KILLED, MARKS, MISSING, ROUNDS

__all__ = ["JOB", "RESTARTED", "RESUMED", "UNDISTURBED", "Story"]

JOB = "curve"
UNDISTURBED = "curve-undisturbed"
"""The same job without kills: only the slow client is slow there, too."""
RESUMED = 6
"""The round in which the server is killed."""
RESTARTED = 2
"""The round in which the broker is restarted."""
_PATIENCE = 120.0


class Story:
    """Plays the run; `runs_dir` has it afterwards."""

    def __init__(self, folder: Path, on_step: Callable[[str], None] = lambda _: None) -> None:
        """Play it in ``folder``, told step by step."""
        self.runs_dir = folder / "runs"
        self._folder = folder
        self._marks = folder / "marks"
        self._tell = on_step

    @property
    def run_folder(self) -> Path:
        """The folder of the run."""
        return self.runs_dir / JOB

    def play(self, before_end: Callable[[PrivateNode], None] = lambda _: None) -> None:
        """Play it to its end, and another one undisturbed, in some 60 s.

        ``before_end`` gets the broker, which still runs, when both are over.

        Raises:
            AssertionError: something did not happen in time.
        """
        self._marks.mkdir(parents=True)
        with PrivateNode(self._folder / "node", plugins=(MANAGEMENT_PLUGIN,)) as node:
            commands = Commands(node.url, self._folder, **{MARKS: str(self._marks)})
            try:
                self._play(commands, node)
                before_end(node)
            except AssertionError as error:
                raise AssertionError(f"{error}\n{commands.outputs()}") from error
            finally:
                commands.end()

    def _play(self, commands: Commands, node: PrivateNode) -> None:
        clients = {name: self._client(commands, name) for name in CLIENTS}
        server = self._server(commands)
        self._await(f"round-{RESTARTED}")
        self._tell("restarting the broker")
        node.restart()
        name, number = KILLED
        self._kill(clients[name], f"{name}-{number}", f"{name} in round {number}")
        clients[name] = self._client(commands, name)
        self._kill(server, f"round-{RESUMED}", f"the server in round {RESUMED}")
        server = self._server(commands)
        name, number = MISSING
        self._await(f"round-{number}")
        self._kill(clients[name], f"{name}-{number}", f"{name} in round {number}")
        self._await(f"round-{number + 1}")
        clients[name] = self._client(commands, name)
        assert server.wait(_PATIENCE) == 0, "the server failed"
        assert (self.run_folder / "history.json").exists()
        self._tell(f"{ROUNDS} rounds are over; the same again, undisturbed")
        server = self._server(commands, UNDISTURBED)
        assert server.wait(_PATIENCE) == 0, "the second server failed"

    def _client(self, commands: Commands, name: str) -> subprocess.Popen[bytes]:
        state = f"--state-dir={self._folder / 'state' / name}"
        return commands.run("client", "tests.ui.story_app:client", f"--client-id={name}", state)

    def _server(self, commands: Commands, job: str = JOB) -> subprocess.Popen[bytes]:
        return commands.run("server", "tests.ui.story_app:server", f"--job={job}", "--seed=7")

    def _kill(self, process: subprocess.Popen[bytes], mark: str, who: str) -> None:
        self._await(mark)
        time.sleep(0.3)  # some of its work is done
        self._tell(f"killing {who}")
        process.kill()
        process.wait()

    def _await(self, mark: str) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not (self._marks / mark).exists():
            assert time.monotonic() < deadline, f"{mark} did not come"
            time.sleep(0.02)
