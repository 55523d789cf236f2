"""Clients are laptops, too: flmq works where there is nothing that Unix alone has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.processes import open_to_others


def test_imports_and_a_federation_with_folders(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.not_unix", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        umask=0o022,
        cwd=Path(__file__).parent.parent,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "finished after 2: [(1, 1.0), (2, 2.0)]\n", done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "state" / "c0").is_dir()
    assert list((tmp_path / "cache").glob("*.blob"))
    assert open_to_others(tmp_path / "state", tmp_path / "cache", tmp_path / "runs") == []
