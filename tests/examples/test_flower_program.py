"""A program written for flwr runs on flmq once its imports and its address are replaced."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT
from tests.processes import environment, run_together

PROGRAM = Path(__file__).parent / "flwr_program"
ADDRESS = "127.0.0.1:8080"
"""What the program, written for Flower, has for its server's address."""


def moved(text: str, broker_url: str) -> str:
    """The program after the two changes of docs/flower.md."""
    text = re.sub(r"^(import|from) flwr\b", r"\1 flmq", text, flags=re.MULTILINE)
    assert ADDRESS in text
    return text.replace(ADDRESS, broker_url)


def test_a_flower_program_moves_by_its_imports(broker_url: str, tmp_path: Path) -> None:
    for name in ("server.py", "client.py"):
        text = (PROGRAM / name).read_text(encoding="utf-8")
        (tmp_path / name).write_text(moved(text, broker_url), encoding="utf-8")
    env = environment(broker_url)
    del env["FLMQ_BROKER_URL"]  # the program itself names its broker
    server, *clients = run_together(
        [["python", "server.py"], ["python", "client.py", "0"], ["python", "client.py", "1"]],
        tmp_path,
        env,
    )
    assert "round 1: configured 2 clients" in server
    assert "round 2: 2 results from ['0', '1'], 0 failures" in server
    assert "fit metrics: {'lr': [(1, 0.5), (2, 0.25)]}" in server
    losses = [float(loss) for loss in re.findall(r"^round \d: loss ([0-9.]+)", server, re.M)]
    assert len(losses) == 2
    assert losses[1] < losses[0]
    assert all("left in order" in client for client in clients)


def test_the_classic_example(broker_url: str, tmp_path: Path) -> None:
    example = ROOT / "examples" / "flower_classic"
    server, *_ = run_together(
        [
            ["python", str(example / "server.py")],
            ["python", str(example / "client.py"), "0"],
            ["python", str(example / "client.py"), "1"],
        ],
        tmp_path,
        environment(broker_url),
    )
    assert "round 5: 2 results, 0 failures" in server
    last = re.search(r"\(5, ([0-9.]+)\)\]", server)
    assert last is not None
    assert float(last.group(1)) < 0.1


def test_an_example_with_torch_needs_none_where_its_server_runs() -> None:
    code = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "from flmq.server.context import ServerContext\n"
        "from flmq.cli.load import load_server\n"
        "parts = load_server('server:server', ServerContext('job'))\n"
        "print(type(parts.strategy).__name__, parts.config)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "examples" / "pytorch",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("FedAvg num_rounds=")
