"""The rig of the conformance suite: every test of it runs once for each implementation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flmq.testing import fast_retries
from flmq.transport import Publisher, Transport
from tests.transport.rigs import MemoryRig, RabbitMQRig, Rig


@pytest.fixture(autouse=True)
def _fast() -> Iterator[None]:
    with fast_retries():
        yield


@pytest.fixture(params=["memory", "rabbitmq"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made: Rig = (
        MemoryRig()
        if request.param == "memory"
        else RabbitMQRig(request.getfixturevalue("broker_url"))
    )
    yield made
    made.close()


@pytest.fixture
def transport(rig: Rig) -> Transport:
    return rig.transport()


@pytest.fixture
def publisher(transport: Transport) -> Publisher:
    return transport.publisher()
