"""The deployment's files fit together, and RabbitMQ takes the configuration that is shipped."""

from __future__ import annotations

import re
from pathlib import Path

from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.urls import parse_broker_url
from tests.docs.pages import ROOT

DEPLOY = ROOT / "deploy"
FLMQ = ROOT / "flmq"


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


def test_the_variables_in_the_table_are_ones_that_flmq_reads() -> None:
    table = (DEPLOY / "README.md").read_text(encoding="utf-8")
    source = "".join(path.read_text(encoding="utf-8") for path in FLMQ.rglob("*.py"))
    names = set(re.findall(r"`(FLMQ_(?!PASSWORD)\w+)`", table))
    assert names
    for name in names:
        assert f'"{name}"' in source, f"nothing in flmq reads {name}"


def test_rabbitmq_starts_with_the_shipped_configuration(tmp_path: Path) -> None:
    lines = (DEPLOY / "rabbitmq.conf").read_text(encoding="utf-8").splitlines()
    pairs = [line.partition("=") for line in lines if line.strip() and not line.startswith("#")]
    settings = {key.strip(): value.strip() for key, _, value in pairs}
    assert settings["consumer_timeout"] == "86400000"
    # A test machine may have less room than a broker should.
    settings["disk_free_limit.absolute"] = "50MB"
    with PrivateNode(tmp_path / "node", settings=settings) as node:
        assert ask_broker(parse_broker_url(node.url)).product == "RabbitMQ"
