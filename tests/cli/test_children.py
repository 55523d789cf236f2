"""Child processes: they obey, they are killed where they do not, and none outlives its parent."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.cli.children import Children
from tests.transport.rigs import eventually

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
IGNORE = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("deaf", flush=True)
time.sleep(60)
"""
DEAF = [sys.executable, "-c", IGNORE]


@pytest.fixture
def children() -> Iterator[Children]:
    made = Children({"FLMQ_TEST_VALUE": "from the parent"})
    yield made
    made.end()


def test_a_child_gets_the_variables_and_writes_to_its_log(
    children: Children, tmp_path: Path
) -> None:
    code = "import os, sys; print(os.environ['FLMQ_TEST_VALUE']); sys.exit(7)"
    children.start("teller", [sys.executable, "-c", code], tmp_path / "log")
    children.wait(["teller"], timeout=30.0)
    assert not children.running("teller")
    assert children.exit_status("teller") == 7
    assert (tmp_path / "log").read_text() == "from the parent\n"


def test_a_killed_child_says_by_what_signal_and_can_be_started_again(children: Children) -> None:
    children.start("sleeper", SLEEP)
    assert children.running("sleeper")
    assert children.exit_status("sleeper") is None
    children.kill("sleeper")
    assert children.exit_status("sleeper") == -signal.SIGKILL
    children.start("sleeper", SLEEP)
    assert children.running("sleeper")


def test_a_child_can_be_interrupted(children: Children, tmp_path: Path) -> None:
    code = (
        "import time\nfrom flmq.cli.stopping import in_order\n"
        "with in_order(lambda: 'nothing goes on'):\n    print('in', flush=True); time.sleep(60)"
    )
    children.start("patient", [sys.executable, "-c", code], tmp_path / "patient")
    eventually(lambda: "in" in (tmp_path / "patient").read_text())
    children.interrupt("patient")
    children.wait(["patient"], timeout=30.0)
    assert children.exit_status("patient") == 143
    assert (tmp_path / "patient").read_text() == "in\nflmq: stopped: nothing goes on\n"


def test_the_end_asks_first_and_kills_those_that_do_not_obey(
    children: Children, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flmq.cli.children._PATIENCE", 0.5)
    children.start("obedient", SLEEP)
    children.start("deaf", DEAF, tmp_path / "deaf")
    eventually(lambda: "deaf" in (tmp_path / "deaf").read_text())
    children.end()
    assert children.exit_status("obedient") == -signal.SIGTERM
    assert children.exit_status("deaf") == -signal.SIGKILL
    children.end()  # harmless


def test_waiting_for_a_child_that_stays_ends_in_time(children: Children) -> None:
    children.start("sleeper", SLEEP)
    started = time.monotonic()
    children.wait(["sleeper"], timeout=0.2)
    assert 0.2 <= time.monotonic() - started < 5.0
    assert children.running("sleeper")


def test_a_child_does_not_outlive_a_parent_that_is_killed() -> None:
    code = (
        "import sys, time\nfrom flmq.cli.children import Children\n"
        f"children = Children({{}})\nchildren.start('child', {SLEEP!r})\n"
        "print(children._processes['child'].pid, flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert _alive(child)
    parent.kill()
    parent.wait()
    parent.stdout.close()
    eventually(lambda: not _alive(child))


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
