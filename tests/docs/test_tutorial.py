"""The tutorial, followed literally: a calm run, a run that is killed, the same bits."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from tests.docs.pages import README, ROOT, blocks
from tests.processes import environment, run_together, start

PAGE = ROOT / "docs" / "tutorial.md"


def test_its_shells_are_those_of_the_readme_and_are_tested_there() -> None:
    shells = [text for text in blocks(PAGE, "sh") if "broker up" in text]
    assert shells == [text for text in blocks(README, "sh") if "broker up" in text]


def test_followed_literally_it_ends_with_the_same_bits(broker_url: str, tmp_path: Path) -> None:
    install, _, alice, bob, calm, kill, resume, down = blocks(PAGE, "sh")
    assert (install, down) == ("make demo\n", "flmq broker down\n")
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    env = environment(broker_url)
    # In the middle of the run, however quick the machine is.
    assert "sleep 3\n" in kill
    kill = kill.replace(
        "sleep 3", "until grep -qs 'round 3/' runs/killed/server.log; do sleep 0.1; done"
    )
    clients: list[subprocess.Popen[bytes]] = []
    try:
        for n, typed in enumerate((alice, bob)):
            command = ["sh", "-ec", f"exec {typed}"]
            clients.append(start(command, tmp_path / f"client-{n}", tmp_path, env))
        (third,) = run_together([["sh", "-c", calm + kill + resume]], tmp_path, env, 250.0)
    finally:
        for client in clients:
            client.kill()
            client.wait()
    said = "the same model, bit for bit, after each of 300 rounds"
    assert said in third, third
    assert "unfinished" in third, third
    assert f"`{said}`" in PAGE.read_text(encoding="utf-8")
