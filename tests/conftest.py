"""A real RabbitMQ for every test that asks for one.

One broker serves the whole session, found as for everybody else (flmq.broker.find): the one that
FLMQ_BROKER_URL names, with its management API at FLMQ_MANAGEMENT_URL; a private node; a container.
Each test gets a virtual host of its own on it. A broker that cannot be had is a failure that says
how to get one, never a skip.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from flmq.broker.find import obtain_broker
from flmq.broker.management import Management
from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerError, FlmqError
from flmq.common.logger import LOGGER_NAME
from flmq.common.urls import BrokerUrl, parse_broker_url
from tests.secured import SecureNode, secure_node_in

# How long one example takes says more of who else is at work on the machine.
hypothesis.settings.register_profile("flmq", deadline=None)
hypothesis.settings.load_profile("flmq")

# A shell that starts us in the background has us ignore SIGINT, and every child inherits that:
# tests of Ctrl-C would then wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)
# And who stops us by SIGTERM finds everything ended as after Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)


@dataclass(frozen=True)
class SessionBroker:
    """The broker of the whole session, as administrator."""

    address: BrokerUrl
    management: Management
    node: PrivateNode | None
    """The private node; None where it is another broker."""

    @property
    def url(self) -> str:
        """The administrator's URL, on the broker's own first virtual host."""
        return self.address.full


@pytest.fixture(autouse=True)
def _flmqs_log_as_it_was() -> Iterator[None]:
    """Undo what a test does to flmq's log: handlers and levels are the process's."""
    log = logging.getLogger(LOGGER_NAME)
    before = (list(log.handlers), log.level, log.propagate)
    yield
    for handler in set(log.handlers) - set(before[0]):
        handler.close()
    log.handlers, log.propagate = before[0], before[2]
    log.setLevel(before[1])


@pytest.fixture(scope="session")
def broker_node() -> Iterator[SessionBroker]:
    """The session's broker. Shared by all tests: do not stop it; `private_node` is for that."""
    with contextlib.ExitStack() as stack:
        try:
            broker = stack.enter_context(obtain_broker(management=True))
        except FlmqError as error:
            pytest.fail(str(error), pytrace=False)
        assert broker.management is not None
        yield SessionBroker(parse_broker_url(broker.url), broker.management, broker.node)


@pytest.fixture
def broker_url(broker_node: SessionBroker) -> Iterator[str]:
    """URL of a fresh virtual host of one's own, with all permissions; deleted afterwards."""
    vhost = f"test-{secrets.token_hex(6)}"
    broker_node.management.add_vhost(vhost)
    yield broker_node.address.with_vhost(vhost).full
    # Closes what connections the test left there, too.
    broker_node.management.delete_vhost(vhost)


@pytest.fixture(scope="session")
def secure_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureNode]:
    """A node with TLS that logs in by client certificate. Shared, as `broker_node`: some 7 s."""
    with contextlib.ExitStack() as stack:
        try:
            folder = tmp_path_factory.mktemp("secure")
            node = stack.enter_context(secure_node_in(folder))
        except BrokerError as error:
            pytest.fail(str(error), pytrace=False)
        yield node


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


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """Commands that a test calls in this process set variables for their own: not for the next."""
    before = {name: value for name, value in os.environ.items() if name.startswith("FLMQ_")}
    yield
    for name in [name for name in os.environ if name.startswith("FLMQ_")]:
        if name not in before:
            del os.environ[name]
    os.environ.update(before)
