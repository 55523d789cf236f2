"""The demo: it trains, writes its record, survives its own kills, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from pathlib import Path

import numpy as np
import pytest

from flmq.transport import presence_queue, replies_queue
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.processes import BIN, environment, open_to_others, start
from tests.transport.rigs import eventually

SMALL = ("demo", "--clients=3", "--rounds=3", "--job=digits")
SLOW = 120.0


def _start(folder: Path, url: str | None, *arguments: str) -> subprocess.Popen[bytes]:
    env = environment(url or "")
    if url is None:
        del env["FLMQ_BROKER_URL"]
    env["TMPDIR"] = str(_temp(folder))
    return start([str(BIN / "flmq"), *arguments], folder / "output", folder, env)


def _temp(folder: Path) -> Path:
    temp = folder / "tmp"
    temp.mkdir(exist_ok=True)
    return temp


def _output(folder: Path) -> str:
    return (folder / "output").read_text(encoding="utf-8")


def _left_behind(folder: Path) -> list[str]:
    """Processes with the test's folder among their arguments, variables or working folders."""
    left = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        try:
            about = (
                process.joinpath("cmdline").read_bytes() + process.joinpath("environ").read_bytes()
            )
            alive = process.joinpath("stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            continue  # it has ended, or is not ours to look at
        if alive and os.fsencode(folder) in about:
            left.append(about.split(b"\0\0")[0].replace(b"\0", b" ").decode(errors="replace")[:200])
    return left


def _assert_nothing_left(folder: Path) -> None:
    eventually(lambda: _left_behind(folder) == [])
    assert list(_temp(folder).iterdir()) == []


def _sha256(folder: Path) -> str:
    found = re.search(r"model sha256: ([0-9a-f]{64})", _output(folder))
    assert found is not None, _output(folder)
    return found[1]


def _check_files(folder: Path, clients: int, rounds: int) -> None:
    run = folder / "runs" / "digits"
    record = json.loads((run / "history.json").read_text())
    assert [r["server_round"] for r in record["rounds"]] == list(range(1, rounds + 1))
    assert record["error"] is None
    for closed in record["rounds"]:
        assert closed["fit"]["asked"] == closed["fit"]["accepted"] == clients
        assert 0 < closed["metrics"]["accuracy"] <= 1
        assert closed["bytes_down"] > 0
        assert closed["bytes_up"] > 0
    with np.load(run / "model.npz") as file:
        assert [file[name].shape for name in file.files] == [(64, 10), (10,)]
    assert (run / "rounds.png").read_bytes()[:4] == b"\x89PNG"


@pytest.fixture(scope="module")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a demo in memory, which has ended well."""
    folder = tmp_path_factory.mktemp("simulated")
    process = _start(folder, None, *SMALL, "--in-memory")
    assert process.wait(SLOW) == 0, _output(folder)
    return folder


def test_the_demo_in_memory_trains_and_says_that_it_is_simulated(simulated: Path) -> None:
    assert "no RabbitMQ (simulated)" in _output(simulated)
    _check_files(simulated, clients=3, rounds=3)
    _assert_nothing_left(simulated)


def test_the_demo_that_kills_a_client_has_the_model_of_an_undisturbed_one(
    broker_url: str, tmp_path: Path, simulated: Path
) -> None:
    # What lies in the current folder is nobody's who did not ask for it.
    (tmp_path / "rich.py").write_text("raise SystemExit('rich.py was run')")
    process = _start(tmp_path, broker_url, *SMALL, "--kill=1")
    assert process.wait(SLOW) == 0, _output(tmp_path)
    _check_files(tmp_path, clients=3, rounds=3)
    assert open_to_others(tmp_path / "runs") == []
    _assert_nothing_left(tmp_path)
    assert _sha256(tmp_path) == _sha256(simulated)
    record = json.loads((tmp_path / "runs" / "digits" / "history.json").read_text())
    assert [note for _, note in record["notes"] if note.startswith("killed client-")]
    with RabbitMQTransport(broker_url) as witness:
        assert witness.inspect_queue(replies_queue("digits")) is None
        assert witness.inspect_queue(presence_queue("digits")) is None


def test_the_closed_demo_that_kills_a_client_has_the_same_model(
    tmp_path: Path, simulated: Path
) -> None:
    """By TLS, certificates and rights of each process's own."""
    process = _start(tmp_path, None, *SMALL, "--kill=1", "--secure")
    assert process.wait(SLOW) == 0, _output(tmp_path)
    _check_files(tmp_path, clients=3, rounds=3)
    seen_by_others = open_to_others(tmp_path / "runs")
    assert all(path.suffix == ".pub" for path in seen_by_others), seen_by_others
    _assert_nothing_left(tmp_path)
    assert _sha256(tmp_path) == _sha256(simulated)


def test_the_demo_with_a_broker_of_its_own_ends_in_order_at_ctrl_c(tmp_path: Path) -> None:
    """In the middle of its rounds, of which it has too many to end by itself."""
    process = _start(tmp_path, None, "demo", "--clients=3", "--rounds=5000", "--job=digits")
    record = tmp_path / "runs" / "digits" / "history.json"

    def has_begun() -> bool:
        assert process.poll() is None, _output(tmp_path)
        return record.exists() and len(json.loads(record.read_text())["rounds"]) >= 1

    eventually(has_begun, SLOW)
    process.send_signal(signal.SIGINT)
    assert process.wait(SLOW) == 130, _output(tmp_path)
    said = _output(tmp_path)
    assert "Traceback" not in said
    assert said.count("flmq: stopped: ") == 1
    again = "flmq demo --clients=3 --rounds=5000 --job=digits"
    assert said.endswith(f"runs/digits keeps the rounds. Go on with: {again}\n"), said
    _assert_nothing_left(tmp_path)
