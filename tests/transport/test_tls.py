"""TLS and logins on a real broker: what gets in, and of each fault its own word on what to do."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flmq.broker.probe import ask_broker
from flmq.certs.folder import CertificateFiles, CertsFolder
from flmq.common.errors import BrokerAccessRefused, BrokerError, BrokerUnavailable
from flmq.common.urloptions import tls_context
from flmq.common.urls import BrokerUrl, InvalidBrokerUrl, parse_broker_url
from flmq.transport.base import ConnectionEvent, ConnectionState
from flmq.transport.rabbitmq import RabbitMQTransport
from flmq.transport.retry import fast_retries
from tests.proxy import Proxy
from tests.secured import SecureNode
from tests.transport.rigs import bodies, eventually, only, publish_all, queue, to

ALICE = "ward-3.clinic.example"
DAY = timedelta(days=1)


@pytest.fixture
def vhost(secure_node: SecureNode) -> Iterator[str]:
    with secure_node.vhost() as name:
        secure_node.add_user(ALICE, name)
        yield name


@pytest.fixture
def address(secure_node: SecureNode, vhost: str) -> BrokerUrl:
    return parse_broker_url(secure_node.url(ALICE, vhost))


@pytest.fixture
def other(tmp_path: Path) -> CertsFolder:
    """Another authority."""
    folder = CertsFolder(tmp_path / "other")
    folder.init("another authority", 9)
    return folder


def changed(url: BrokerUrl, **options: object) -> BrokerUrl:
    """The URL with other options; None leaves one out."""
    merged = {**dict(url.options), **options}
    kept = tuple((name, str(value)) for name, value in merged.items() if value is not None)
    return replace(url, options=kept)


def own(files: CertificateFiles) -> dict[str, object]:
    return {"certfile": files.certificate, "keyfile": files.key}


def refused(url: BrokerUrl, error: type[BrokerError], says: str) -> None:
    """Nobody gets in by ``url``, neither the doctor nor a process; and it is said why."""
    for attempt in (ask_broker, RabbitMQTransport):
        with pytest.raises(error, match=says):
            attempt(url)


def test_by_certificate_over_tls(address: BrokerUrl) -> None:
    with RabbitMQTransport(address) as transport:
        assert transport.user == ALICE
        transport.declare(queue("q"))
        large = bytes(range(256)) * 20_000
        publish_all(transport.publisher(), to("q"), large)
        assert bodies(only(transport.consumer(["q"], prefetch=1), 1)) == [large]


def test_the_users_name_may_be_written(address: BrokerUrl) -> None:
    with RabbitMQTransport(replace(address, user=ALICE)) as transport:
        assert transport.user == ALICE


def test_an_authority_that_did_not_sign(address: BrokerUrl, other: CertsFolder) -> None:
    wrong = changed(address, cafile=other.authority.certificate)
    refused(wrong, BrokerAccessRefused, "not signed by the authority in .*ca.pem")
    unknown = changed(address, cafile=None)
    refused(unknown, BrokerAccessRefused, r"none that this machine knows.*\?cafile=")


def test_another_hosts_certificate(address: BrokerUrl) -> None:
    wrong = changed(address, server_name="broker.example")
    refused(wrong, BrokerAccessRefused, "is not for 'broker.example': connect by a name")
    by_address = changed(replace(address, host="127.0.0.1"), server_name="localhost")
    RabbitMQTransport(by_address).close()


def test_no_client_certificate(address: BrokerUrl) -> None:
    bare = replace(
        changed(address, auth=None, certfile=None, keyfile=None), user="flmq", password="x"
    )
    refused(bare, BrokerAccessRefused, r"wants a client certificate.*\?certfile=")


def test_a_client_certificate_of_another_authority(address: BrokerUrl, other: CertsFolder) -> None:
    files = other.client(ALICE, 9)
    refused(changed(address, **own(files)), BrokerAccessRefused, "does not trust this client's")


def test_a_client_certificate_that_has_expired(secure_node: SecureNode, address: BrokerUrl) -> None:
    before = datetime.now(UTC) - 9 * DAY
    files = CertsFolder(secure_node.certs.path)
    expired = files.client("expired", 5, force=True, now=before)
    wrong = changed(address, **own(expired))
    refused(replace(wrong, user="expired"), BrokerAccessRefused, "it has expired; renew it")


def test_a_certificate_of_an_unknown_user(secure_node: SecureNode, vhost: str) -> None:
    url = parse_broker_url(secure_node.url("stranger", vhost))
    refused(url, BrokerAccessRefused, "knows no user 'stranger'|knows no the user of")


def test_the_plain_port_with_tls_and_the_other_way_round(
    secure_node: SecureNode, address: BrokerUrl
) -> None:
    ports = secure_node.node.ports
    refused(replace(address, port=ports.amqp), BrokerUnavailable, "speaks no TLS.*plain port")
    plain = parse_broker_url(secure_node.node.url)
    refused(replace(plain, port=ports.amqps), BrokerUnavailable, "a port for TLS.*amqps://")


def test_a_broker_without_logins_by_certificate(
    secure_node: SecureNode, broker_url: str, address: BrokerUrl
) -> None:
    """TLS that ends before the broker hands on no certificate."""
    plain = parse_broker_url(broker_url)
    server = secure_node.certs.files_of_server("localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    with Proxy(plain.host, plain.port, context) as proxy:
        url = replace(address, port=proxy.port, vhost=plain.vhost)
        refused(url, BrokerAccessRefused, "takes no login by certificate: enable its plugin")


@pytest.mark.parametrize(
    ("began", "days", "says"),
    [(-9 * DAY, 5, "has expired"), (9 * DAY, 5, "not yet valid: the clock")],
)
def test_a_brokers_certificate_out_of_its_time(
    secure_node: SecureNode,
    broker_url: str,
    tmp_path: Path,
    began: timedelta,
    days: int,
    says: str,
) -> None:
    folder = CertsFolder(tmp_path / "times")
    folder.init("authority", 99, now=datetime.now(UTC) - 30 * DAY)
    server = folder.server(["localhost"], days, now=datetime.now(UTC) + began)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(server.certificate, server.key)
    plain = parse_broker_url(broker_url)
    with Proxy(plain.host, plain.port, context) as proxy:
        url = replace(plain, host="localhost", port=proxy.port, tls=True)
        refused(changed(url, cafile=folder.authority.certificate), BrokerAccessRefused, says)


def test_verification_is_off_only_by_a_word_that_says_so(
    address: BrokerUrl, other: CertsFolder, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = changed(address, cafile=other.authority.certificate, server_name="broker.example")
    with caplog.at_level(logging.WARNING, "flmq"):
        RabbitMQTransport(changed(wrong, verify="insecure-none")).close()
    assert "is not verified (verify=insecure-none)" in caplog.text
    for word in ("none", "verify_none", "false", "0", ""):
        with pytest.raises(InvalidBrokerUrl, match="knows one word: insecure-none"):
            RabbitMQTransport(changed(address, verify=word))


def test_tls_1_1_is_refused(address: BrokerUrl) -> None:
    context = tls_context(address)
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cafile": "/no/such"}, "cafile /no/such cannot be read"),
        ({"certfile": "/no/such"}, "certfile /no/such cannot be read"),
        ({"certfile": None, "auth": None}, "keyfile is of no use"),
    ],
)
def test_files_that_cannot_be_used(
    address: BrokerUrl, options: dict[str, object], says: str
) -> None:
    url = replace(changed(address, **options), user="x", password="x" * ("auth" in options))
    with pytest.raises(InvalidBrokerUrl, match=says):
        tls_context(url)


def test_a_key_of_another_certificate(address: BrokerUrl, other: CertsFolder) -> None:
    files = other.client("bob", 9)
    with pytest.raises(InvalidBrokerUrl, match="is not that of the certificate"):
        tls_context(changed(address, keyfile=files.key))


def test_certificates_are_read_again_at_each_connection(
    secure_node: SecureNode, vhost: str, other: CertsFolder
) -> None:
    """A certificate that the broker refuses is waited for, and the next one taken."""
    user = "rotating"
    secure_node.add_user(user, vhost)
    url = secure_node.url(user, vhost)
    files = secure_node.certs.files_of_client(user)
    good = files.certificate.read_bytes(), files.key.read_bytes()
    bad = other.client(user, 9)
    seen: list[ConnectionEvent] = []
    with fast_retries(), RabbitMQTransport(url, listener=seen.append) as transport:
        files.certificate.write_bytes(bad.certificate.read_bytes())
        files.key.write_bytes(bad.key.read_bytes())
        _close_connections(secure_node, user)
        eventually(lambda: any("does not trust this client's" in e.detail for e in seen))
        files.certificate.write_bytes(good[0])
        files.key.write_bytes(good[1])
        eventually(lambda: seen[-1].state is ConnectionState.CONNECTED)
        transport.declare(queue("q"))


def test_a_rotated_password_is_taken_at_the_next_connection(
    secure_node: SecureNode, vhost: str, tmp_path: Path
) -> None:
    user, file = "by-password", tmp_path / "password"
    secure_node.add_user(user, vhost)

    def rotate(password: str) -> None:
        body = {"password": password, "tags": ""}
        secure_node.management.call("PUT", f"/api/users/{user}", body)

    rotate("first")
    file.write_text("first\n")
    plain = secure_node.password_url(user, "", vhost)
    url = replace(plain, options=(("password_file", str(file)),))
    seen: list[ConnectionEvent] = []
    with fast_retries(), RabbitMQTransport(url, listener=seen.append) as transport:
        rotate("second")
        _close_connections(secure_node, user)
        eventually(lambda: any("user 'by-password'" in e.detail for e in seen))
        assert not any("first" in e.detail for e in seen)
        file.write_text("second\n")
        eventually(lambda: seen[-1].state is ConnectionState.CONNECTED)
        transport.declare(queue("q"))


def _close_connections(node: SecureNode, user: str) -> None:
    node.node.ctl("close_all_user_connections", user, "test")
