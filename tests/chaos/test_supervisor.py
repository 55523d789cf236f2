"""The supervisor itself: it leaves nobody behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.transport.rigs import eventually

PROGRAM = """
import sys, time
from pathlib import Path
from tests.chaos.supervisor import Supervisor

with Supervisor({}, Path(sys.argv[1])) as supervisor:
    supervisor.start("sleeper", [sys.executable, "-c", "import time; time.sleep(300)"])
    print(supervisor.pid("sleeper"), flush=True)
    time.sleep(300)
"""


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_member_outlives_the_tests(tmp_path: Path, number: signal.Signals) -> None:
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(root)},
    ) as tests:
        assert tests.stdout is not None
        member = int(tests.stdout.readline())
        assert alive(member)
        tests.send_signal(number)
    eventually(lambda: not alive(member))
