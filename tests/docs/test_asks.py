"""The page on asks is true: its loop runs, and goes on after kills, over the real broker."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from tests.docs.pages import README, ROOT, program
from tests.processes import environment, start
from tests.transport.rigs import eventually

PAGE = ROOT / "docs" / "asks.md"
CLIENT = """
import time
from flmq.client import NumPyClient

class Client(NumPyClient):
    def __init__(self, name):
        self.pause = 0.02 * (1 + ord(name))  / 100
    def fit(self, parameters, config):
        time.sleep(self.pause)
        return [tensor + 1 for tensor in parameters], 1, {}

def client(context):
    return Client(context.client_id)
"""


def test_the_loop_goes_on_after_kills(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "quorum.py").write_text(program(PAGE, "quorum.py"), encoding="utf-8")
    (tmp_path / "worker.py").write_text(CLIENT, encoding="utf-8")
    env, started = environment(broker_url), list[subprocess.Popen[bytes]]()

    def run(*arguments: str) -> tuple[subprocess.Popen[bytes], Path]:
        output = tmp_path / f"output-{len(started)}"
        command = [sys.executable, "-m", "flmq", *arguments]
        started.append(start(command, output, tmp_path, env))
        return started[-1], output

    server = ("server", "quorum:server", "--job", "median", "--rounds")
    try:
        for name in "abcd":
            run("client", "worker:client", f"--client-id={name}")
        for killed_after in (2, 4):
            process, output = run(*server, "200")
            eventually(lambda o=output, n=killed_after: _rounds(o) >= n, 60.0)  # type: ignore[misc]
            process.kill()
            process.wait()
        last, output = run(*server, "200")
        assert last.wait(60.0) == 0, output.read_text(encoding="utf-8")
    finally:
        for process in started:
            if process.poll() is None:
                process.kill()
            process.wait()
    with np.load(tmp_path / "runs" / "median" / "model.npz") as model:
        (tensor,) = (model[name] for name in model.files)
    assert _rounds(output) > 0
    # A client adds 1 to what it was given, so no step adds more, and none goes back to the start.
    assert len(set(tensor.tolist())) == 1
    assert 1.0 < float(tensor[0]) <= 200.0
    assert float(tensor[0]).is_integer()


def _rounds(output: Path) -> int:
    """Rounds that a server has closed, by what it said."""
    return output.read_text(encoding="utf-8").count("round ")


def test_the_page_is_linked() -> None:
    assert "docs/asks.md" in README.read_text(encoding="utf-8")
