"""Fixtures for whoever needs a federation: on the memory broker, and on a real one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flmq.testing import fast_retries
from tests.end_to_end.federation import Federation
from tests.transport.rigs import MemoryRig, RabbitMQRig, Rig

__all__ = ["federation", "memory_federation", "rig"]


@pytest.fixture(params=["memory", "rabbitmq"])
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    with fast_retries():
        made: Rig = (
            MemoryRig()
            if request.param == "memory"
            else RabbitMQRig(request.getfixturevalue("broker_url"))
        )
        yield made
        made.close()


@pytest.fixture
def federation(rig: Rig) -> Iterator[Federation]:
    made = Federation(rig)
    yield made
    made.close()


@pytest.fixture
def memory_federation() -> Iterator[Federation]:
    with fast_retries():
        rig = MemoryRig()
        made = Federation(rig)
        yield made
        made.close()
        rig.close()
