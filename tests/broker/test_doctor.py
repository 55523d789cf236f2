"""The doctor: true findings, each with its remedy, and no password."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from flmq.broker import doctor
from flmq.broker.check import Check
from flmq.broker.doctor import run_checks, supported_version
from flmq.broker.node import PrivateNode
from flmq.common.urls import parse_broker_url
from flmq.transport import client_topology, federation_topology
from flmq.transport.rabbitmq import RabbitMQTransport
from tests.conftest import SessionBroker
from tests.transport.rigs import eventually


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
    assert checks["broker"].ok is False  # as `flmq server` would fail
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


@pytest.fixture
def environ(tmp_path: Path, broker_node: SessionBroker) -> dict[str, str]:
    api = f"http://{broker_node.management.host}:{broker_node.management.port}"
    return {"XDG_STATE_HOME": str(tmp_path), "FLMQ_MANAGEMENT_URL": api}


@pytest.mark.parametrize("kind", ["policies", "operator-policies"])
def test_a_policy_that_drops_messages_is_named_with_the_command_that_removes_it(
    broker_url: str, broker_node: SessionBroker, environ: dict[str, str], kind: str
) -> None:
    address = parse_broker_url(broker_url)
    assert _by_name(run_checks(broker_url, environ=environ))["broker policies"].ok
    for name, pattern, limits in (
        ("short", ".*", {"message-ttl": 5000, "max-length": 1}),
        ("others", "^theirs", {"max-length": 1}),
    ):
        policy = {"pattern": pattern, "definition": limits, "apply-to": "queues"}
        broker_node.management.call("PUT", f"/api/{kind}/{address.vhost}/{name}", policy)
    check = _by_name(run_checks(broker_url, environ=environ))["broker policies"]
    assert check.ok is False
    assert "'short' (pattern '.*': message-ttl 5000, max-length 1)" in check.found
    assert "flmq.client" in check.found
    assert "others" not in check.found
    command = "clear_policy" if kind == "policies" else "clear_operator_policy"
    assert f"rabbitmqctl {command} -p {address.vhost} short" in check.mend


def test_a_policy_on_one_clients_queue_alone_is_named_with_the_client(
    broker_url: str, broker_node: SessionBroker, environ: dict[str, str]
) -> None:
    """Whatever the clients are called, and at whatever site: not an example alone is judged."""
    vhost = parse_broker_url(broker_url).vhost
    with RabbitMQTransport(broker_url) as transport:
        transport.declare(federation_topology())
        for client_id in ("bob", "ward-1", "ward-2", "ward-3", "ward-4"):
            transport.declare(client_topology(client_id))
    patterns = {"one": r"^flmq\.client\.bob$", "ward": "ward-", "up": "^flmq.regi"}
    for name, pattern in patterns.items():
        policy = {"pattern": pattern, "definition": {"max-length": 1}, "apply-to": "queues"}
        broker_node.management.call("PUT", f"/api/policies/{vhost}/{name}", policy)

    def found() -> str:
        return _by_name(run_checks(broker_url, environ=environ))["broker policies"].found

    eventually(lambda: "flmq.client (4 of 5: ward-1, ward-2, ward-3, ...)" in found(), 30.0)
    said = found()
    assert "flmq.client (1 of 5: bob);" in said
    assert "in flmq.regional.uploads, flmq.regional; flmq sends" in said


def test_a_wrong_password_is_not_mended_by_starting_a_broker(
    broker_url: str, environ: dict[str, str]
) -> None:
    wrong = replace(parse_broker_url(broker_url), password="not-it")
    check = _by_name(run_checks(wrong.full, environ=environ))["broker"]
    assert check.ok is False
    assert "refuses the login" in check.found
    assert "correct the URL" in check.mend
    assert "start it" not in check.mend
    assert "not-it" not in repr(check)


def test_an_alarm_is_named(private_node: PrivateNode, tmp_path: Path) -> None:
    state = {"XDG_STATE_HOME": str(tmp_path)}
    assert _by_name(run_checks(private_node.url, environ=state))["broker alarms"].ok
    private_node.ctl("set_disk_free_limit", "900000000000000")
    check = _by_name(run_checks(private_node.url, environ=state))["broker alarms"]
    assert check.ok is False
    assert "disk" in check.found
    assert "disk_free_limit" in check.mend


def test_a_certificate_is_trusted_by_its_file(tmp_path: Path, environ: dict[str, str]) -> None:
    """And what is no certificate is a finding, not a crash."""
    absent = run_checks(f"amqps://u:p@127.0.0.1:1/?cafile={tmp_path}/none.pem", environ=environ)
    assert "certificate files cannot be used" in _by_name(absent)["broker"].found
    odd = run_checks("amqp://u:p@127.0.0.1:1/?nonsense=1", environ=environ)
    assert "'nonsense' is not known" in _by_name(odd)["broker"].found


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
