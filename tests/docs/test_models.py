"""The page on models is true: its program runs, and what it writes is read by other tools."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from safetensors import safe_open

from tests.docs.pages import ROOT, program

PAGE = ROOT / "docs" / "models.md"


def test_the_program_names_tensors_and_writes_a_file(tmp_path: Path) -> None:
    (tmp_path / "naming.py").write_text(program(PAGE, "naming.py"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "naming.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "('fc.weight', 'fc.bias')\n"
    with safe_open(tmp_path / "start.safetensors", framework="np") as file:
        assert file.metadata()["trained on"] == "nothing yet"
        assert set(file.keys()) == {"fc.weight", "fc.bias"}
