"""The program of the page on many clients runs, over the real broker, as it stands there."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.docs.pages import README, ROOT, program
from tests.processes import environment, run_together


def test_the_program_of_many_clients_serves_the_readmes_server(
    broker_url: str, tmp_path: Path
) -> None:
    page = ROOT / "docs" / "clients.md"
    (tmp_path / "run_server.py").write_text(program(README, "run_server.py"), encoding="utf-8")
    (tmp_path / "many_clients.py").write_text(program(page, "many_clients.py"), encoding="utf-8")
    typed = [[sys.executable, name] for name in ("run_server.py", "many_clients.py")]
    outputs = run_together(typed, tmp_path, environment(broker_url))
    assert "[(1, 2.0), (2, 1.0), (3, 0.0)]" in outputs[0]
    assert "10 clients (mean-0, mean-1, ... mean-9)" in outputs[1]
