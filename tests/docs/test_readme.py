"""The README is true: its programs and commands run, over the real broker, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.docs.pages import README, ROOT, blocks, commands, program
from tests.processes import environment, run_together


def test_the_app_is_the_quickstart_example() -> None:
    example = ROOT / "examples" / "quickstart" / "app.py"
    assert program(README, "app.py") == example.read_text(encoding="utf-8")


def test_ones_own_federation(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(program(README, "app.py"), encoding="utf-8")
    typed = [
        shlex.split(line)
        for text in blocks(README, "sh")
        for line in text.splitlines()
        if line.startswith(("flmq server app:", "flmq client app:"))
    ]
    assert [words[1] for words in typed] == ["server", "client", "client"]
    outputs = run_together(typed, tmp_path, environment(broker_url))

    assert "round 5/5 asked=2 answered=2 failed=0 silent=0" in outputs[0]
    assert all("job line ended: all rounds done" in output for output in outputs[1:])
    record = json.loads((tmp_path / "runs" / "line" / "history.json").read_text(encoding="utf-8"))
    assert [closed["fit"]["accepted"] for closed in record["rounds"]] == [2] * 5
    assert record["final_loss"] < 0.02
    with np.load(tmp_path / "runs" / "line" / "model.npz") as model:
        np.testing.assert_allclose(model["arr_0"], [3, 1], atol=0.1)
    assert (tmp_path / "runs" / "line" / "server.log").stat().st_size > 0


def test_from_python(broker_url: str, tmp_path: Path) -> None:
    for name in ("run_server.py", "run_client.py"):
        (tmp_path / name).write_text(program(README, name), encoding="utf-8")
    typed = [
        ["python", "run_server.py"],
        ["python", "run_client.py", "alice"],
        ["python", "run_client.py", "bob"],
    ]
    outputs = run_together(typed, tmp_path, environment(broker_url))
    assert "[(1, 2.0), (2, 1.0), (3, 0.0)]" in outputs[0]


def test_the_imports_of_a_moved_program_are_there() -> None:
    (diff,) = blocks(README, "diff")
    new = [line[1:] for line in diff.splitlines() if line.startswith("+")]
    old = [line[1:] for line in diff.splitlines() if line.startswith("-")]
    assert [re.sub(r"\bflwr\b", "flmq", line) for line in old[:-1]] == new[:-1]
    imports = [line for line in new if line.startswith(("import ", "from "))]
    assert len(imports) == 3
    names: dict[str, object] = {}
    exec("\n".join(imports), names)
    assert callable(eval("fl.server.start_server", names))


def test_the_demo_with_and_without_kills_ends_with_the_same_bits(
    broker_url: str, tmp_path: Path
) -> None:
    small = ["--clients=3", "--rounds=4", f"--runs-dir={tmp_path}"]
    env = environment(broker_url)
    (killed,) = run_together([["flmq", "demo", "--kill=2", "--job=k", *small]], tmp_path, env)
    del env["FLMQ_BROKER_URL"]
    (undisturbed,) = run_together([["flmq", "demo", "--in-memory", *small]], tmp_path, env)
    assert digest(killed) == digest(undisturbed)
    notes = json.loads((tmp_path / "k" / "history.json").read_text(encoding="utf-8"))["notes"]
    assert any("killed" in text for _, text in notes)
    assert (tmp_path / "k" / "rounds.png").stat().st_size > 10_000


def digest(output: str) -> str:
    (found,) = re.findall(r"model sha256: ([0-9a-f]{64})", output)
    return str(found)


@pytest.mark.parametrize("line", [c for c in commands(README) if c.startswith("make ")])
def test_there_is_this_to_make(line: str) -> None:
    words = shlex.split(line)
    done = subprocess.run(
        [words[0], "--dry-run", *words[1:]],
        cwd=ROOT,
        env={**os.environ, "MAKEFLAGS": "", "MAKELEVEL": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    for word in words:
        if word.startswith("ARGS="):
            assert word.removeprefix("ARGS=") in done.stdout
