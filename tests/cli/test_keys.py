"""`flmq keys`: made, listed, compared."""

from __future__ import annotations

import json
import stat
from pathlib import Path

from typer.testing import CliRunner

from flmq.cli.main import app
from flmq.e2e.keys import load_identity, load_public, roster_digest


def flmq(*arguments: str) -> str:
    done = CliRunner().invoke(app, ["keys", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_keys_are_made_listed_and_compared(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    made = flmq("new", "alice", "host.example.org", "--dir", str(folder))
    assert stat.S_IMODE((folder / "alice.key").stat().st_mode) == 0o600
    listed = flmq("list", str(folder))
    assert len(listed.splitlines()) == 2
    assert set(listed.splitlines()) == set(made.splitlines())
    alice = load_identity(folder / "alice.key").public
    assert flmq("fingerprint", str(folder / "alice.pub")) == f"alice  {alice.fingerprint}\n"
    assert flmq("fingerprint", str(folder / "alice.key")) == f"alice  {alice.fingerprint}\n"
    assert flmq("public", str(folder / "alice.key")) == (folder / "alice.pub").read_text()
    rows = [json.loads(line) for line in flmq("list", str(folder), "--json").splitlines()]
    assert {row["name"] for row in rows} == {"alice", "host.example.org"}
    assert flmq("roster", str(folder)).strip() == roster_digest(load_public(folder).values()).hex()
