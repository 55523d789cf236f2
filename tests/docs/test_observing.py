"""The page on observers: its programs do what it says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from flmq.observe import bus, events
from tests.docs.pages import ROOT, program
from tests.ui.synthetic import Synthetic, write_run

PAGE = ROOT / "docs" / "observing.md"


def run(text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program of the page's in ``folder``."""
    path = folder / "program.py"
    path.write_text(text, encoding="utf-8")
    return subprocess.run(
        [sys.executable, path],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )


def test_an_observer_of_ones_own_is_told_of_rounds_and_their_clients(tmp_path: Path) -> None:
    lines = run(program(PAGE, "watch.py"), tmp_path).stdout.splitlines()
    assert [line.rpartition(" ")[0] for line in lines[:3]] == [
        "round 1: 3 of 3, loss 1.0, last",
        "round 2: 3 of 3, loss 0.5, last",
        "round 3: 3 of 3, loss 0.25, last",
    ]
    assert {line.rpartition(" ")[2] for line in lines[:3]} <= {"0", "1", "2"}
    assert lines[3:] == ["over after 3 rounds: well"]


def test_who_comes_late_sees_the_rounds_that_are_over(tmp_path: Path) -> None:
    late = program(PAGE, "late.py").replace("board = Board()", "observed()\nboard = Board()")
    watch = program(PAGE, "watch.py").replace("[Slowest()]", "bus")
    watch = watch.replace('if __name__ == "__main__":', "def observed():")
    # A bus that is closed has told all when its observers' threads have ended.
    end = """
import threading
for thread in threading.enumerate():
    if thread.name == "flmq-events":
        thread.join()
print([closed.server_round for closed in board.rounds])
"""
    assert run(f"{watch}\n\n{late}{end}", tmp_path).stdout.splitlines()[-1] == "[1, 2, 3]"


def test_the_log_can_be_read_by_programs(tmp_path: Path) -> None:
    logged = program(PAGE, "jsonlog.py")
    lines = run(f"{logged}\n{program(PAGE, 'watch.py')}", tmp_path).stderr.splitlines()
    records = [json.loads(line) for line in lines]
    assert len({record["job"] for record in records}) == 1
    rounds = [each["server_round"] for each in records if "3 of 3 answered;" in each["message"]]
    assert rounds == [1, 2, 3]


def test_every_event_is_in_the_table() -> None:
    text = PAGE.read_text(encoding="utf-8")
    kinds = {
        name
        for name in events.__all__
        if name not in {"Observer", "Outcome", "Phase", "RoundCounts", "TaskRef"}
        and isinstance(getattr(events, name), type)
    }
    assert {name for name in kinds if f"`{name}`" not in text} == set()


def test_the_limits_that_it_states_are_those_of_the_code() -> None:
    assert "At most 100,000 events wait" in PAGE.read_text(encoding="utf-8")

    assert (bus._LIMIT, bus._STUCK_AFTER) == (100_000, 10.0)


def test_where_the_time_of_each_round_went_is_read_from_its_folder(tmp_path: Path) -> None:
    folder = write_run(tmp_path, Synthetic(rounds=3, clients=4))
    call = f"\n\nslowest(Path({str(folder)!r}))\n"
    lines = run(program(PAGE, "slowest.py") + call, tmp_path).stdout.splitlines()
    assert [line.split()[0] for line in lines if "Split(waiting=" in line] == ["1", "2", "3"]
    assert sum("fit client-00" in line and "TaskTimes(" in line for line in lines) == 3 * 4
