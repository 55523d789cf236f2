"""scripts/install-rabbitmq.sh, where the binary is there: it does nothing, for whoever asks."""

from __future__ import annotations

import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "install-rabbitmq.sh"
POLICY = Path("/usr/sbin/policy-rc.d")


def test_it_is_plain_sh() -> None:
    subprocess.run(["sh", "-n", SCRIPT], check=True)


def test_it_does_nothing_where_the_binary_is_there(tmp_path: Path) -> None:
    before = POLICY.read_bytes() if POLICY.exists() else None
    # Anything that it would change goes through one of these.
    for name in ("apt-get", "systemctl", "update-rc.d", "rabbitmq-server"):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {name} was called\nexit 1\n")
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", SCRIPT],
        env={"PATH": f"{tmp_path}:/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (POLICY.read_bytes() if POLICY.exists() else None) == before
