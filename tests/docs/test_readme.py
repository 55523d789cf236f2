"""The README is true: its programs and commands run, over the real broker, as they stand there."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from flmq.common.urls import parse_broker_url
from tests.docs.pages import README, ROOT, blocks, commands, program
from tests.processes import environment, run_together

_URL = "amqp://user:password@host:5672/vhost"


def test_the_app_is_the_quickstart_example() -> None:
    example = ROOT / "examples" / "quickstart" / "app.py"
    assert program(README, "app.py") == example.read_text(encoding="utf-8")


def terminals(url: str) -> list[str]:
    """The blocks of one's own federation, one a terminal, with the broker's true address."""
    scripts = [text for text in blocks(README, "sh") if "app:" in text]
    for text in scripts:
        assert re.findall("^export FLMQ_BROKER_URL=(.*)$", text, re.MULTILINE) == [_URL]
    return [text.replace(_URL, shlex.quote(url)) for text in scripts]


def test_ones_own_federation(broker_url: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(program(README, "app.py"), encoding="utf-8")
    typed = [["sh", "-ec", script] for script in terminals(broker_url)]
    assert len(typed) == 3
    env = environment("")
    del env["FLMQ_BROKER_URL"]
    outputs = run_together(typed, tmp_path, env)

    assert "round 5/5 asked=2 answered=2 failed=0 silent=0" in outputs[0]
    assert all("job line ended: all rounds done" in output for output in outputs[1:])
    record = json.loads((tmp_path / "runs" / "line" / "history.json").read_text(encoding="utf-8"))
    assert [closed["fit"]["accepted"] for closed in record["rounds"]] == [2] * 5
    assert record["final_loss"] < 0.02
    with np.load(tmp_path / "runs" / "line" / "model.npz") as model:
        np.testing.assert_allclose(model["arr_0"], [3, 1], atol=0.1)
    assert (tmp_path / "runs" / "line" / "model.safetensors").exists()
    assert (tmp_path / "runs" / "line" / "server.log").stat().st_size > 0

    # What the page has one type besides: it looks at the run, at the broker, and at options.
    told = {
        "flmq runs": "line",
        "flmq runs show line": "alice",
        "flmq runs export line --to line.safetensors": "written: line.safetensors",
        "flmq runs export line --to line.csv": "written: line.csv",
        "flmq doctor": parse_broker_url(broker_url).host,
        "flmq server --help": "FLMQ_JOB",
        "flmq client --help": "FLMQ_CLIENT_ID",
    }
    assert set(told) <= set(commands(README))
    looked = run_together([shlex.split(line) for line in told], tmp_path, environment(broker_url))
    for expected, output in zip(told.values(), looked, strict=True):
        assert expected in output, output


def test_a_terminal_of_ones_own_machine(tmp_path: Path) -> None:
    (script,) = (text for text in blocks(README, "sh") if "broker up" in text)
    assert "flmq broker down" in commands(README)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    env = {**os.environ, "XDG_STATE_HOME": str(tmp_path / "state")}
    env.pop("FLMQ_BROKER_URL", None)
    then = 'ls app.py; echo "$FLMQ_BROKER_URL"; flmq broker status'
    try:
        # In a second terminal it finds the broker that is up.
        (first,) = run_together([["sh", "-ec", script + then]], tmp_path, env)
        (second,) = run_together([["sh", "-ec", script + then]], tmp_path, env)
    finally:
        run_together([["sh", "-ec", f"{script.splitlines()[0]}; flmq broker down"]], tmp_path, env)
    urls = [re.findall("^amqp://.*$", output, re.MULTILINE) for output in (first, second)]
    assert urls[0] == urls[1]
    assert len(urls[0]) == 1
    assert "app.py\n" in first


@pytest.mark.parametrize("line", [c for c in commands(README) if c.startswith("pip install")])
def test_it_installs_with_its_extras(line: str, tmp_path: Path) -> None:
    if "'flmq[" in line:
        line = line.replace("flmq[", ".[")  # as messages say it, where flmq comes from an index
    offline = ["--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--no-index"]
    done = subprocess.run(
        [sys.executable, "-m", *shlex.split(line), *offline, f"--target={tmp_path}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "does not provide the extra" not in done.stderr
    assert (tmp_path / "flmq" / "cli" / "main.py").exists()


def test_every_extra_for_users_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (_, _, installing) = README.read_text(encoding="utf-8").partition("\n## Installing\n")
    (installing, _, _) = installing.partition("\n## ")
    for extra in project["optional-dependencies"].keys() - {"bench", "dev"}:
        assert f"`{extra}`" in installing


def test_from_python(broker_url: str, tmp_path: Path) -> None:
    for name in ("run_server.py", "run_client.py"):
        (tmp_path / name).write_text(program(README, name), encoding="utf-8")
    typed = [shlex.split(line) for line in commands(README) if line.startswith("python run_")]
    assert [words[1:] for words in typed] == [
        ["run_server.py"],
        ["run_client.py", "alice"],
        ["run_client.py", "bob"],
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
