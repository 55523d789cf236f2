"""The page on datacenters: its file is one, and what it has one type does what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flmq.sites.reading import _LINK_KEYS, _SITE_KEYS, read_federation
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "datacenters.md"
VARIABLES = ("MAIN_URL", "EU_URL", "AP_URL", "EU_FROM_MAIN", "MAIN_FROM_EU")


def federation_file(folder: Path) -> Path:
    (text,) = blocks(PAGE, "toml")
    file = folder / "federation.toml"
    file.write_text(text)
    return file


def test_its_file_is_a_federation(tmp_path: Path) -> None:
    environ = {name: f"amqp://u:p@{name.lower().replace('_', '-')}/v" for name in VARIABLES}
    environ |= {f"{name}_API": "http://h:15672" for name in ("MAIN", "EU", "AP")}
    federation = read_federation(federation_file(tmp_path), environ)
    assert [site.name for site in federation.children("main")] == ["eu-west", "ap-south"]


def test_it_names_every_key() -> None:
    page = PAGE.read_text()
    for key in _SITE_KEYS:
        assert f"| `{key}` |" in page
    for key in _LINK_KEYS:
        assert f"{key} = " in page


def script_of(heading: str) -> list[str]:
    """The blocks of sh below a heading."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = [text for text in blocks(PAGE, "sh") if text in section]
    assert found
    return found


@pytest.mark.slow
def test_what_it_has_one_type_ends_with_the_same_bits(tmp_path: Path) -> None:
    federation_file(tmp_path)
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    script = "\n".join(script_of("On one machine"))
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for name in ("FLMQ_BROKER_URL", "FLMQ_SITE", "FLMQ_SITES"):
        env.pop(name, None)
    try:
        done = subprocess.run(
            ["sh", "-ec", script],
            cwd=tmp_path,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=280,
        )
    finally:
        for site in ("main", "eu-west", "ap-south"):
            subprocess.run(
                [sys.executable, "-m", "flmq", "broker", "down", "--purge", "--name", site],
                env=env,
                capture_output=True,
                check=False,
            )
    assert done.returncode == 0, done.stdout
    assert "the link is down" in done.stdout
    assert "link main -> eu-west down: eu-west does not reach main" in done.stdout
    assert "the same bits" in done.stdout
