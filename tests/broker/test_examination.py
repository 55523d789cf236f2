"""What the doctor finds of a broker: alarms, room for connections, clocks, certificates."""

from __future__ import annotations

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pika
import pytest
from typer.testing import CliRunner

from flmq.broker.check import Check
from flmq.broker.doctor import run_checks
from flmq.broker.examination import certificate, examine
from flmq.broker.management import Management
from flmq.broker.policies import dropping_policies
from flmq.certs.authority import Authority
from flmq.cli.exit_codes import ExitCode
from flmq.cli.main import app
from flmq.common.urls import BrokerUrl, parse_broker_url
from flmq.transport.provisioned import PROVISIONED
from tests.conftest import SessionBroker


class Said(Management):
    """An API that says what a test gives it, by the beginning of a path."""

    answers: Mapping[str, Any]
    clock: float | None

    def call(self, method: str, path: str, body: object = None) -> Any:
        return next((each for begin, each in self.answers.items() if path.startswith(begin)), [])

    def time(self) -> float | None:
        return self.clock


ADDRESS = parse_broker_url("amqp://flmq:x@hub/flmq")
NODE = {"name": "rabbit@a", "running": True, "sockets_total": 900, "sockets_used": 10}


def api(answers: Mapping[str, Any], clock: float | None = None) -> Said:
    made = object.__new__(Said)
    object.__setattr__(made, "answers", answers)
    object.__setattr__(made, "clock", clock)
    return made


def found(said: Management | None, address: BrokerUrl = ADDRESS) -> dict[str, Check]:
    return {check.name: check for check in examine(said, address)}


def test_the_alarm_and_its_node_are_named() -> None:
    memory = NODE | {"mem_alarm": True, "mem_used": 900e6, "mem_limit": 800e6}
    disk = {"name": "rabbit@b", "disk_free_alarm": True, "disk_free": 1e6, "disk_free_limit": 5e9}
    down = {"name": "rabbit@c", "running": False}
    check = found(api({"/api/nodes": [memory, disk, down]}))["node alarms"]
    assert check.ok is False
    assert "rabbit@a has a memory alarm: 900 MB used of 800 MB" in check.found
    assert "rabbit@b has a disk alarm: 1 MB free of 5000 MB wanted" in check.found
    assert "rabbit@c is down" in check.found
    assert "set_vm_memory_high_watermark" in check.mend
    assert "set_disk_free_limit" in check.mend
    well = found(api({"/api/nodes": [NODE]}))["node alarms"]
    assert (well.ok, well.mend) == (True, "")


@pytest.mark.parametrize(("limit", "ok"), [(None, True), (500, True), (50, None), (5, False)])
def test_connections_are_counted_against_what_is_needed_and_allowed(
    limit: int | None, ok: bool | None
) -> None:
    answers = {
        "/api/nodes": [NODE],
        "/api/vhosts/flmq/connections": [{"user": "flmq"}] * 3,
        "/api/vhost-limits": [{"vhost": "flmq", "value": {"max-connections": limit}}],
        "/api/queues/flmq": {"filtered_count": 99},
    }
    check = found(api(answers))["connections"]
    assert check.ok is ok, check
    assert "3 are there; 99 clients and a server need 300" in check.found
    assert "10 of 900 that rabbit@a has descriptors for" in check.found
    assert ("set_vhost_limits -p flmq" in check.mend) == (ok is not True)


def test_a_users_own_limit_counts_too() -> None:
    answers = {
        "/api/nodes": [NODE],
        "/api/vhosts/flmq/connections": [{"user": "flmq"}] * 3 + [{"user": "other"}] * 9,
        "/api/user-limits/flmq": [{"user": "flmq", "value": {"max-connections": 3}}],
    }
    check = found(api(answers))["connections"]
    assert check.ok is False
    assert "3 of 3 of user flmq" in check.found


@pytest.mark.parametrize(("off", "way"), [(0.0, ""), (-90.0, "90 s behind"), (3600.0, "ahead")])
def test_clocks_that_do_not_agree_are_named(off: float, way: str) -> None:
    check = found(api({}, int(time.time() + off)))["clocks"]
    assert check.ok is (off == 0.0)
    assert way in check.found
    assert ("NTP" in check.mend) == bool(off)


def test_without_the_api_nothing_is_judged() -> None:
    assert {check.ok for check in found(None).values()} == {None}
    nobody = found(Management("127.0.0.1", 1, "u", "p", 1.0))
    assert {check.ok for check in nobody.values()} == {None}
    assert all("FLMQ_MANAGEMENT_URL" in check.mend for check in nobody.values())


def test_a_real_broker_is_examined(broker_url: str, broker_node: SessionBroker) -> None:
    address = parse_broker_url(broker_url)
    with_limit = {"value": 2}
    path = f"/api/vhost-limits/{address.vhost}/max-connections"
    well = found(broker_node.management, address)
    assert {name: check.ok for name, check in well.items()} == {
        "node alarms": True,
        "connections": True,
        "clocks": True,
    }, well
    broker_node.management.call("PUT", path, with_limit)
    tight = found(broker_node.management, address)["connections"]
    assert tight.ok is False, tight
    assert "of 2 of the virtual host" in tight.found


def test_a_provisioned_virtual_host_is_told_from_others(
    broker_url: str, broker_node: SessionBroker, tmp_path: Path
) -> None:
    environ = {"XDG_STATE_HOME": str(tmp_path)}

    def checks() -> dict[str, Check]:
        return {check.name: check for check in run_checks(broker_url, environ=environ)}

    plain = checks()["provisioned"]
    assert (plain.ok, "flmq provision" in plain.mend) == (None, True)
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        connection.channel().exchange_declare(PROVISIONED, "fanout", durable=True, internal=True)
    address = parse_broker_url(broker_url)
    path = f"/api/permissions/{address.vhost}/{address.user}"
    nothing = {"configure": "^$", "write": "^flmq.replies$", "read": "^flmq.client.a$"}
    broker_node.management.call("PUT", path, nothing)
    told = checks()
    assert told["provisioned"].ok is True
    assert told["permissions"].ok is True
    assert "as it should be" in told["permissions"].found


@pytest.mark.parametrize("kind", ["policies", "operator-policies"])
def test_a_policy_that_drops_models_is_named(
    broker_url: str, broker_node: SessionBroker, kind: str
) -> None:
    vhost = parse_broker_url(broker_url).vhost
    limits = {"max-length-bytes": 1000} if kind == "operator-policies" else {"max-age": "1m"}
    policy = {"pattern": "^flmq.models$", "definition": limits, "apply-to": "queues"}
    broker_node.management.call("PUT", f"/api/{kind}/{vhost}/short", policy)
    said = [line for line, _ in dropping_policies(broker_node.management, vhost)]
    assert any("drop models from flmq.models" in line for line in said), said


def test_findings_are_there_for_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flmq.cli.doctor.run_checks",
        lambda broker: [Check("a", True, "well"), Check("b", False, "ill", "mend it")],
    )
    result = CliRunner().invoke(app, ["doctor", "--json"])
    assert result.exit_code == ExitCode.CHECK_FAILED
    assert json.loads(result.output) == [
        {"name": "a", "ok": True, "found": "well", "mend": ""},
        {"name": "b", "ok": False, "found": "ill", "mend": "mend it"},
    ]
    quiet = CliRunner().invoke(app, ["doctor", "--json", "--quiet"])
    assert [each["name"] for each in json.loads(quiet.output)] == ["b"]


@pytest.fixture
def tls_port(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[int]:
    """Of a server whose certificate, by the authority in ca.pem, is valid for so many days."""
    authority = Authority.new("test", 400)
    signed = authority.server(["127.0.0.1"], request.param)
    for name, pem in (
        ("ca.pem", authority.signed.certificate),
        ("cert.pem", signed.certificate),
        ("key.pem", signed.key),
    ):
        (tmp_path / name).write_bytes(pem)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def shake_hands() -> None:
            plain, _ = listener.accept()
            with contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as one:
                one.recv(1)

        thread = threading.Thread(target=shake_hands, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        thread.join(10)


@pytest.mark.parametrize(("tls_port", "ok"), [(3, False), (300, True)], indirect=["tls_port"])
def test_a_certificate_that_ends_soon_is_told(tls_port: int, ok: bool, tmp_path: Path) -> None:
    url = f"amqps://u:p@127.0.0.1:{tls_port}/x?cafile={tmp_path / 'ca.pem'}"
    check = certificate(parse_broker_url(url))
    assert check.ok is ok, check
    assert ("restart it" in check.mend) is not ok


@pytest.mark.parametrize("tls_port", [300], indirect=True)
def test_a_certificate_that_is_not_verified_is_not_judged(tls_port: int) -> None:
    check = certificate(
        parse_broker_url(f"amqps://u:p@127.0.0.1:{tls_port}/x?verify=insecure-none")
    )
    assert check.ok is None
    assert "not verified" in check.found
