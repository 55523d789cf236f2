"""Private nodes with TLS: who gets in, and what they find again at the next start."""

from __future__ import annotations

import ssl

import pika
import pytest

from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerRefusal
from flmq.common.urls import parse_broker_url
from tests.secured import SecureNode


def login(node: SecureNode, user: str, version: ssl.TLSVersion, vhost: str) -> str:
    """Log in by certificate and return the user whom the broker sees."""
    files = node.files(user)
    context = ssl.create_default_context(cafile=str(node.cafile))
    context.minimum_version = context.maximum_version = version
    context.load_cert_chain(files.certificate, files.key)
    port = node.node.ports.amqps
    parameters = pika.ConnectionParameters(
        "localhost",
        port,
        vhost,
        pika.credentials.ExternalCredentials(),
        ssl_options=pika.SSLOptions(context, "localhost"),
    )
    connection = pika.BlockingConnection(parameters)
    try:
        listed = node.node.ctl("list_connections", "user", "ssl", "ssl_protocol")
        return next(line for line in listed.splitlines() if line.startswith(user))
    finally:
        connection.close()


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_client_is_who_its_certificate_says(
    secure_node: SecureNode, version: ssl.TLSVersion
) -> None:
    user = "ward-3.clinic.example"
    with secure_node.vhost() as vhost:
        secure_node.add_user(user, vhost)
        assert login(secure_node, user, version, vhost).split()[:2] == [user, "true"]


def test_the_nodes_own_user_comes_by_password(secure_node: SecureNode) -> None:
    assert ask_broker(parse_broker_url(secure_node.node.url)).product == "RabbitMQ"
    url = parse_broker_url(secure_node.node.tls_url)
    assert (url.tls, url.host, url.port) == (True, "localhost", secure_node.node.ports.amqps)


def test_a_node_without_tls_has_no_tls_url() -> None:
    with pytest.raises(BrokerRefusal, match="without TLS"):
        _ = PrivateNode().tls_url
