"""A real RabbitMQ for every test that asks for one.

One broker serves the whole session: a private node from the local binary, or the broker that
FLMQ_BROKER_URL names (with its management API at FLMQ_MANAGEMENT_URL). Each test gets a virtual
host of its own on it. A broker that cannot be had is a failure that says how to get one, never a
skip.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flmq.broker.management import Management
from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerError
from flmq.common.urls import BrokerUrl, parse_broker_url


@dataclass(frozen=True)
class SessionBroker:
    """The broker of the whole session, as administrator."""

    address: BrokerUrl
    management: Management
    node: PrivateNode | None
    """The private node; None where FLMQ_BROKER_URL names another broker."""

    @property
    def url(self) -> str:
        """The administrator's URL, on the broker's own first virtual host."""
        return self.address.full


@pytest.fixture(scope="session")
def broker_node() -> Iterator[SessionBroker]:
    """The session's broker. Shared by all tests: do not stop it; `private_node` is for that."""
    given = os.environ.get("FLMQ_BROKER_URL")
    if given:
        yield _given_broker(given)
        return
    try:
        node = PrivateNode(management=True).start()
    except BrokerError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield SessionBroker(parse_broker_url(node.url), node.management, node)
    finally:
        node.stop()


@pytest.fixture
def broker_url(broker_node: SessionBroker) -> Iterator[str]:
    """URL of a fresh virtual host of one's own, with all permissions; deleted afterwards."""
    vhost = f"test-{secrets.token_hex(6)}"
    broker_node.management.add_vhost(vhost)
    yield broker_node.address.with_vhost(vhost).full
    # Closes what connections the test left there, too.
    broker_node.management.delete_vhost(vhost)


@pytest.fixture
def private_node(tmp_path: Path) -> Iterator[PrivateNode]:
    """A node of the test's own, to stop, kill and restart: it costs some seven seconds."""
    try:
        node = PrivateNode(tmp_path / "node").start()
    except BrokerError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield node
    finally:
        node.stop(timeout=2.0)


def _given_broker(url: str) -> SessionBroker:
    address = parse_broker_url(url)
    where = os.environ.get("FLMQ_MANAGEMENT_URL", f"http://{address.host}:15672")
    parts = urlsplit(where)
    management = Management(
        parts.hostname or address.host, parts.port or 15672, address.user, address.password
    )
    try:
        management.call("GET", "/api/whoami")
    except BrokerError as error:
        pytest.fail(
            f"FLMQ_BROKER_URL is given, so the tests make their virtual hosts over its management "
            f"API, as the same user: {error} (FLMQ_MANAGEMENT_URL says where it is)",
            pytrace=False,
        )
    return SessionBroker(address, management, None)
