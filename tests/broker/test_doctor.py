"""The doctor: true findings, each with its remedy, and no password."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from flmq.broker import doctor
from flmq.broker.doctor import Check, run_checks, supported_version
from flmq.common.urls import parse_broker_url
from tests.conftest import SessionBroker


def _by_name(checks: list[Check]) -> dict[str, Check]:
    named = {check.name: check for check in checks}
    assert len(named) == len(checks)
    return named


def test_with_a_broker_all_is_well(
    broker_url: str, broker_node: SessionBroker, tmp_path: Path
) -> None:
    checks = _by_name(run_checks(broker_url, environ={"XDG_STATE_HOME": str(tmp_path)}))
    for name in ("python", "pika", "broker", "broker version", "broker capabilities"):
        assert checks[name].ok, checks[name]
        assert checks[name].mend == ""
    assert "RabbitMQ" in checks["broker version"].found
    api = f"http://{broker_node.management.host}:{broker_node.management.port}"
    there = {"XDG_STATE_HOME": str(tmp_path), "FLMQ_MANAGEMENT_URL": api}
    deadline = time.monotonic() + 30.0
    while not (plugins := _by_name(run_checks(broker_url, environ=there))["broker plugins"]).ok:
        # A node reports for the first time some five seconds after its start.
        assert "not known yet" in plugins.found
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert "rabbitmq_management" in plugins.found
    assert not [check for check in checks.values() if check.ok is False]


def test_without_a_broker_it_says_how_to_have_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path / 'no.sock'}")
    environ = {"XDG_STATE_HOME": str(tmp_path), "FLMQ_RABBITMQ_SERVER": "/nowhere"}
    checks = _by_name(run_checks(environ=environ))
    assert checks["broker"].ok is None
    assert "flmq broker up" in checks["broker"].mend
    assert checks["rabbitmq-server"].ok is False
    assert "apt-get install" in checks["rabbitmq-server"].mend
    assert checks["docker"].ok is None
    assert "no.sock" in checks["docker"].found


def test_a_broker_that_does_not_answer_is_a_fault_without_its_password(tmp_path: Path) -> None:
    environ = {
        "XDG_STATE_HOME": str(tmp_path),
        "FLMQ_BROKER_URL": "amqp://carol:s3cret@127.0.0.1:1/x",
    }
    checks = run_checks(environ=environ)
    assert _by_name(checks)["broker"].ok is False
    assert "s3cret" not in repr(checks)
    assert (
        _by_name(run_checks("amqp://carol:s3cret@host:port/", environ=environ))["broker"].ok
        is False
    )


def test_a_user_who_may_not_declare_is_told_the_command(
    broker_url: str, broker_node: SessionBroker, tmp_path: Path
) -> None:
    address = parse_broker_url(broker_url)
    permissions = {"configure": "^$", "write": ".*", "read": ".*"}
    path = f"/api/permissions/{address.vhost}/{address.user}"
    broker_node.management.call("PUT", path, permissions)
    checks = _by_name(run_checks(broker_url, environ={"XDG_STATE_HOME": str(tmp_path)}))
    assert checks["permissions"].ok is False
    assert f"set_permissions -p {address.vhost}" in checks["permissions"].mend


@pytest.mark.parametrize(
    ("version", "supported"),
    [
        ("3.9.29", False),
        ("3.10.8", True),
        ("3.13.7", True),
        ("4.3.5", True),
        ("4.0.0-rc.1", True),
        ("5.0.0", False),
        ("", False),
        ("nightly", False),
    ],
)
def test_supported_versions(version: str, supported: bool) -> None:
    assert supported_version(version) is supported


@pytest.mark.parametrize(
    ("version", "requirement", "within"),
    [
        ("1.26.4", "numpy<3,>=1.26", True),
        ("3.0.0", "numpy<3,>=1.26", False),
        ("1.25.9", "numpy<3,>=1.26", False),
        ("7.34.0", "protobuf<7,>=5.28", False),
        ("1.26", "numpy>=1.26", True),
    ],
)
def test_library_versions_are_held_against_the_requirement(
    version: str, requirement: str, within: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.metadata.version", lambda _: version)
    check = doctor._library(requirement)
    assert check.ok is within
    assert bool(check.mend) is not within
