"""Followed as written, docs/security.md leads from nothing to a closed federation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "security.md"


def script() -> str:
    section = PAGE.read_text().partition("## From nothing to a closed federation\n")[2]
    found = [text for text in blocks(PAGE, "sh") if text in section]
    assert len(found) >= 4
    return "\n".join(found)


@pytest.mark.slow
def test_what_it_has_one_type_ends_in_a_trained_model(tmp_path: Path) -> None:
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLMQ_")}
    env["PATH"] = f"{Path(sys.executable).parent}:{env['PATH']}"
    env["XDG_STATE_HOME"] = str(tmp_path / "state")
    command = ["sh", "-ec", script()]
    try:
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=200,
        )
    finally:
        purge = [sys.executable, "-m", "flmq", "broker", "down", "--purge", "--name", "closed"]
        subprocess.run(purge, env=env, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout
    assert (tmp_path / "runs" / "line" / "model.npz").is_file(), done.stdout
    assert "Traceback" not in done.stdout
