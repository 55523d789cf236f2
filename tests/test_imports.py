"""Who imports whom: the contracts of pyproject.toml, held here so that tests show a breach."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
LINT_IMPORTS = Path(sys.executable).with_name("lint-imports")

ROUND_MAY_IMPORT = {"__future__", "collections", "collections.abc", "dataclasses", "enum", "typing"}


def lint_imports(package: Path) -> subprocess.CompletedProcess[str]:
    """Run the contracts over the flmq that lies in the folder ``package``."""
    return subprocess.run(
        [LINT_IMPORTS, "--no-logo", "--no-cache", str(ROOT / "pyproject.toml")],
        cwd=package,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        check=False,
    )


def test_contracts_hold() -> None:
    done = lint_imports(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 broken" in done.stdout


@pytest.mark.parametrize(
    ("module", "line", "contract"),
    [
        ("common/names.py", "import flmq.wire", "downwards"),
        ("transport/base.py", "import flmq.server", "downwards"),
        ("e2e/letters.py", "import time", "Keys, signatures and seals"),
        ("e2e/letters.py", "import flmq.wire", "downwards"),
        ("broker/find.py", "import flmq.client", "rest on common alone"),
        ("round/state.py", "import time", "no clock"),
        ("server/presence/registry.py", "import time", "registry of clients"),
        ("server/server.py", "import pika", "know pika"),
        ("messaging/inbox.py", "import flmq.wire.proto.flmq.v1.fit_pb2", "generated code"),
        ("server/app.py", "import rich", "the terminal"),
    ],
)
def test_a_breach_is_found(tmp_path: Path, module: str, line: str, contract: str) -> None:
    """A contract that nothing can break would be worth nothing."""
    copy = tmp_path / "flmq"
    for source in (ROOT / "flmq").rglob("*.py"):
        target = copy / source.relative_to(ROOT / "flmq")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source.read_bytes())
    with (copy / module).open("a", encoding="utf-8") as file:
        file.write(f"\n{line}\n")
    done = lint_imports(tmp_path)
    assert done.returncode != 0
    broken = [row for row in done.stdout.splitlines() if " BROKEN" in row]
    assert any(contract in row for row in broken), done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", sorted((ROOT / "flmq" / "round").glob("*.py")), ids=lambda p: p.name
)
def test_the_round_imports_nothing_but_nouns(path: Path) -> None:
    allowed = ("flmq.common", "flmq.round")
    for name in imported(path):
        assert name in ROUND_MAY_IMPORT or name.startswith(allowed), f"{path.name} imports {name}"


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it that is."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
