"""The page on simulation is true: its program runs, without a guard for its processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.docs.pages import ROOT, program

PAGE = ROOT / "docs" / "simulation.md"


def test_the_program_runs(tmp_path: Path) -> None:
    (tmp_path / "simulated.py").write_text(program(PAGE, "simulated.py"), encoding="utf-8")
    ran = subprocess.run(
        [sys.executable, "simulated.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    assert "round 3/3: fit 100 of 100 answered" in ran.stderr
    assert "round 1 of 3" not in ran.stderr  # the line is for people
