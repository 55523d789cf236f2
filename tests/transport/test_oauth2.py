"""OAuth 2 tokens on a real broker: taken from a file, renewed on the open connection."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from flmq.broker.layout import MANAGEMENT_PLUGIN
from flmq.broker.node import PrivateNode
from flmq.broker.probe import ask_broker
from flmq.common.errors import BrokerAccessRefused
from flmq.common.urls import BrokerUrl, parse_broker_url
from flmq.transport.base import ConnectionEvent, ConnectionState
from flmq.transport.rabbitmq import RabbitMQTransport
from flmq.transport.rabbitmq.login import ConnectionLogin
from flmq.transport.retry import fast_retries
from tests.transport.rigs import eventually, publish_all, queue, to

Sign = Callable[[float], str]
"""Makes a token for alice that expires in so many seconds."""


def signer(key: rsa.RSAPrivateKey) -> Sign:
    def sign(seconds: float) -> str:
        claims = {
            "sub": "alice",
            "aud": "flmq",
            "exp": int(time.time() + seconds),
            "scope": [f"flmq.{right}:*/*" for right in ("configure", "write", "read")],
            "jti": str(time.time()),
        }
        return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "one"})

    return sign


@pytest.fixture(scope="module")
def key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@pytest.fixture(scope="module")
def sign(key: rsa.RSAPrivateKey) -> Sign:
    return signer(key)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, key: rsa.RSAPrivateKey) -> Iterator[PrivateNode]:
    """A broker that takes passwords and tokens."""
    folder = tmp_path_factory.mktemp("oauth2")
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    (folder / "key.pem").write_bytes(public)
    settings = {
        "auth_backends.1": "internal",
        "auth_backends.2": "rabbit_auth_backend_oauth2",
        "auth_oauth2.resource_server_id": "flmq",
        "auth_oauth2.signing_keys.one": str(folder / "key.pem"),
        "auth_oauth2.default_key": "one",
    }
    plugins = (MANAGEMENT_PLUGIN, "rabbitmq_auth_backend_oauth2")
    with PrivateNode(folder / "node", settings=settings, plugins=plugins) as started:
        yield started


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "token"


@pytest.fixture
def address(node: PrivateNode, file: Path) -> BrokerUrl:
    own = parse_broker_url(node.url)
    return replace(own, user="alice", password="", options=(("token_file", str(file)),))


def test_a_token_lets_its_user_in(address: BrokerUrl, file: Path, sign: Sign) -> None:
    file.write_text(sign(600))
    assert ask_broker(address, declare=True).can_declare
    with RabbitMQTransport(address) as transport:
        assert transport.user == "alice"
        transport.declare(queue("q"))
        publish_all(transport.publisher(), to("q"), b"x")


def test_a_token_that_is_refused_says_so_and_is_not_shown(address: BrokerUrl, file: Path) -> None:
    forged = signer(rsa.generate_private_key(65537, 2048))(600)
    file.write_text(forged)
    for attempt in (ask_broker, RabbitMQTransport):
        with pytest.raises(BrokerAccessRefused, match="user 'alice'") as caught:
            attempt(address)
        assert forged not in f"{caught.value} {caught.value.__cause__!r}"


def test_a_token_is_renewed_on_the_open_connection(
    address: BrokerUrl, file: Path, sign: Sign
) -> None:
    """Past the first token's end, nothing was lost; and the file was read in time."""
    file.write_text(first := sign(5))
    seen: list[ConnectionEvent] = []
    with RabbitMQTransport(address, listener=seen.append) as transport:
        transport.declare(queue("renewed"))
        publisher = transport.publisher()
        file.write_text(sign(600))
        assert file.read_text() != first
        time.sleep(7)  # past the first one's end, and what the broker forgives
        publish_all(publisher, to("renewed"), b"after")
        info = transport.inspect_queue("renewed")
        assert info is not None
        assert info.messages_ready == 1
    assert not [event for event in seen if event.state is ConnectionState.LOST]


def test_a_token_that_cannot_be_renewed_is_waited_for_with_one_line(
    address: BrokerUrl, file: Path, sign: Sign, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_text(sign(4))
    caplog.set_level(logging.WARNING, "flmq")
    with fast_retries(), RabbitMQTransport(address) as transport:
        numbers = itertools.count()

        def may_declare() -> bool:
            try:
                transport.declare(queue(f"late-{next(numbers)}"))
            except BrokerAccessRefused:
                return False
            return True

        assert may_declare()
        file.unlink()
        eventually(lambda: "cannot be renewed" in caplog.text)
        eventually(lambda: not may_declare())
        file.write_text(newer := sign(600))
        eventually(may_declare)
    said = [each for each in caplog.messages if "cannot be renewed" in each]
    assert len(said) == 1
    assert "the token of user alice" in said[0]
    assert str(file) in said[0]
    assert newer not in caplog.text


def test_a_newer_token_that_the_broker_refuses(address: BrokerUrl, file: Path, sign: Sign) -> None:
    file.write_text(sign(4))
    seen: list[ConnectionEvent] = []
    with fast_retries(), RabbitMQTransport(address, listener=seen.append) as transport:
        file.write_text(signer(rsa.generate_private_key(65537, 2048))(600))
        eventually(lambda: any("refuses" in event.detail for event in seen))
        file.write_text(sign(600))
        eventually(lambda: seen[-1].state is ConnectionState.CONNECTED)
        transport.declare(queue("again"))


def test_nothing_is_renewed_without_a_time_of_expiry() -> None:
    class Thread:
        def post(self, action: Callable[[], None]) -> None:
            raise AssertionError

        def call_later(self, seconds: float, action: Callable[[], None]) -> None:
            raise AssertionError

    login = ConnectionLogin(parse_broker_url("amqp://a:b@h"), "test", Thread())
    login.parameters()
    login.connection_up(object())
