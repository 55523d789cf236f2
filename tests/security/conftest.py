"""Federations on provisioned virtual hosts, over both transports."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.testing import fast_retries
from tests.conftest import SessionBroker
from tests.end_to_end.federation import Federation
from tests.security.hosts import Host, MemoryHost, RabbitMQHost


@pytest.fixture(params=["memory", "rabbitmq"])
def host(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Host]:
    with fast_retries():
        made: Host
        if request.param == "memory":
            made = MemoryHost()
        else:
            broker: SessionBroker = request.getfixturevalue("broker_node")
            url = request.getfixturevalue("broker_url")
            made = RabbitMQHost(url, broker.management, tmp_path)
        yield made
        made.close()


@pytest.fixture
def real_host(
    broker_node: SessionBroker, broker_url: str, tmp_path: Path
) -> Iterator[RabbitMQHost]:
    with fast_retries():
        made = RabbitMQHost(broker_url, broker_node.management, tmp_path)
        yield made
        made.close()


@pytest.fixture
def federation(host: Host) -> Iterator[Federation]:
    made = Federation(host)
    yield made
    made.close()
