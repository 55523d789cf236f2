"""The deployment's files fit together, and RabbitMQ takes the configuration that is shipped."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.cli.main import app
from flmq.common.urls import parse_broker_url
from tests.docs.pages import ROOT

DEPLOY = ROOT / "deploy"


def test_what_compose_mounts_and_builds_is_there() -> None:
    compose = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    mounted = re.findall(r"^\s+- (\.\.?/[^:\n]+):", compose, re.MULTILINE)
    assert mounted
    for path in mounted:
        assert (DEPLOY / path).is_file(), path
    (context,) = re.findall(r"context: (\S+)", compose)
    (dockerfile,) = re.findall(r"dockerfile: (\S+)", compose)
    assert (DEPLOY / context / dockerfile).is_file()


def test_what_the_dockerfile_copies_is_there() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    sources = [
        name
        for line in re.findall(r"^COPY (?!--)(.+)$", dockerfile, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert {"pyproject.toml", "README.md", "LICENSE", "flmq"} <= set(sources)
    for name in sources:
        assert (ROOT / name).exists(), name


def test_the_table_has_the_variables_of_server_and_client() -> None:
    table = dict(
        re.findall(r"^\| `(FLMQ_\w+)` \| (\w+) \|", (DEPLOY / "README.md").read_text(), re.M)
    )
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    read: dict[str, str] = {"FLMQ_KEEP_MEMORY": "both", "FLMQ_DEBUG": "both"}
    for of in ("server", "client"):
        for option in commands[of].params:
            if option.envvar:
                read[option.envvar] = "both" if option.envvar in read else of
    assert table == read


def test_compose_starts_again_who_fails() -> None:
    compose = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    restarts = re.findall(
        r"^  (\w+):\n    <<: \*flmq\n(?:    .*\n)*?    restart: (\S+)$", compose, re.M
    )
    assert dict(restarts) == {
        "server": "on-failure:10",
        "alice": "unless-stopped",
        "bob": "unless-stopped",
    }


def test_rabbitmq_starts_with_the_shipped_configuration(tmp_path: Path) -> None:
    lines = (DEPLOY / "rabbitmq.conf").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line.strip() and not line.startswith("#")]
    settings = {key.strip(): value.strip() for key, _, value in pairs}
    assert settings["consumer_timeout"] == "86400000"
    # A test machine may have less room than a broker should.
    settings["disk_free_limit.absolute"] = "50MB"
    with PrivateNode(tmp_path / "node", settings=settings) as node:
        assert ask_broker(parse_broker_url(node.url)).product == "RabbitMQ"
