"""The page on commands for programs: what it says of their output is what they print."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, blocks, commands
from tests.processes import environment

PAGE = ROOT / "docs" / "cli.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("cli")
    for job in ("line", "other"):
        flmq(
            made, "demo", "--in-memory", "--quiet", "--rounds", "2", "--clients", "2", "--job", job
        )
    return made


def flmq(folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flmq", *words],
        cwd=folder,
        env=environment(""),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_its_blocks_run(folder: Path) -> None:
    for line in (line for text in blocks(PAGE, "sh") for line in text.splitlines()):
        assert flmq(folder, *shlex.split(line)[1:])
    assert (folder / "runs" / "line" / "parts.csv").exists()


def fields(command: str) -> set[str]:
    """The names that the table says the command prints."""
    (row,) = [
        line
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{command}`")
    ]
    return set(re.findall(r"`(\w+)`", row.split("|")[2]))


def test_documents_have_the_fields_of_the_table(folder: Path) -> None:
    (line, _) = json.loads(flmq(folder, "runs", "--json"))
    assert set(line) <= fields("flmq runs --json")
    typed = "flmq runs compare JOB JOB --json"
    assert typed in commands(PAGE)
    told = json.loads(flmq(folder, "runs", "compare", "line", "other", "--json"))
    assert set(told) <= fields(typed)
    assert set(told["rounds"][0]["sides"][0]) <= fields(typed)
    assert told["first_measures"] is None


def test_a_round_of_history_has_the_fields_of_the_page(folder: Path) -> None:
    text = PAGE.read_text(encoding="utf-8")
    said = set(re.findall(r"`(\w+)`", text[text.index("## history.json") :]))
    record = json.loads(flmq(folder, "runs", "show", "line", "--json"))
    assert {"server_round", "digest", "outcomes", "loss"} <= said & set(record["rounds"][0])
    assert {"client_id", "word", "num_examples", "times"} <= said & set(
        record["rounds"][0]["outcomes"][0]
    )
