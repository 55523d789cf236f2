"""The page on provision: its file is one, and what it has one type does what it says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flmq.provision import reading
from flmq.provision.reading import read_provision
from tests.docs.pages import ROOT, blocks

PAGE = ROOT / "docs" / "provision.md"


def federation_file(folder: Path) -> Path:
    (text,) = blocks(PAGE, "toml")
    file = folder / "federation.toml"
    file.write_text(text)
    return file


def test_its_file_provisions_who_the_page_says(tmp_path: Path) -> None:
    environ = {"BROKER_URL": "amqp://u:p@h/v", "BROKER_API": "http://h:15672"}
    (tenant,) = read_provision(federation_file(tmp_path), environ)
    users = [party.user for party in tenant.parties]
    assert users == ["alice.example.org", "bob.example.org", "wards", "server", "carol"]


def test_it_names_every_key() -> None:
    page = PAGE.read_text()
    keys = (
        *reading.CLIENT_KEYS, *reading.SERVER_KEYS, *reading.AGGREGATOR_KEYS,
        *reading.LINK_KEYS,
        *reading.OPERATOR_KEYS, *reading.LIMIT_KEYS,
    )  # fmt: skip
    for key in keys:
        assert f"`{key}`" in page, key


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_what_it_has_one_type_works(tmp_path: Path) -> None:
    federation_file(tmp_path)
    shutil.copy(ROOT / "examples" / "quickstart" / "app.py", tmp_path)
    env = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_STATE_HOME": str(tmp_path / "state"),
    }
    for name in ("FLMQ_BROKER_URL", "FLMQ_SITE", "FLMQ_SITES", "FLMQ_FEDERATION"):
        env.pop(name, None)
    output = tmp_path / "output.txt"
    try:
        with output.open("w") as file:
            status = subprocess.run(
                ["sh", "-ec", "\n".join(blocks(PAGE, "sh"))],
                cwd=tmp_path,
                env=env,
                stdout=file,
                stderr=subprocess.STDOUT,
                check=False,
                timeout=560,
            ).returncode
    finally:
        subprocess.run(
            [sys.executable, "-m", "flmq", "broker", "down", "--purge", "--name", "clinic"],
            env=env,
            capture_output=True,
            check=False,
        )
    said = output.read_text()
    assert status == 0, said
    assert said.count("nothing to change") == 2
    assert "client bob.example.org: no longer in the file" in said
    assert (tmp_path / "definitions" / "main.json").exists()
    assert not (tmp_path / "passwords" / "bob.example.org.password").exists()
    for job in ("mnist-1", "mnist-2"):
        assert (tmp_path / "runs" / job / "model.npz").exists()
