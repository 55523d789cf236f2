"""Conformance: what others made, on a virtual host where a process declares nothing."""

from __future__ import annotations

import pytest

from flmq.common.errors import BrokerRefusal
from flmq.transport import ConnectionState, Exchange, ExchangeType, Topology, Transport
from flmq.transport.provisioned import (
    PROVISIONED,
    is_provisioned,
    provisioned_aggregator,
    provisioned_client,
    provisioned_mark,
    provisioned_site,
)
from tests.transport.rigs import Events, Rig, bodies, publish_all, queue, take, to


def test_an_exchange_is_found_by_its_name(transport: Transport) -> None:
    assert not transport.has_exchange("there")
    transport.declare(Topology(exchanges=(Exchange("there", ExchangeType.TOPIC),)))
    assert transport.has_exchange("there")
    assert not transport.has_exchange("elsewhere")


def test_the_user_is_the_one_who_connected(rig: Rig, transport: Transport) -> None:
    assert transport.user == rig.user


def test_a_virtual_host_is_provisioned_once_it_says_so(rig: Rig, transport: Transport) -> None:
    other = rig.transport()
    assert not is_provisioned(other)
    transport.declare(
        provisioned_site("main")
        + provisioned_client("lab7.example.org", "main")
        + provisioned_aggregator("main")
    )
    assert not is_provisioned(other)
    transport.declare(provisioned_mark())
    transport.declare(provisioned_mark())
    assert is_provisioned(other)
    rig.cut()
    assert is_provisioned(other)


def test_nobody_publishes_to_what_says_that_it_is_provisioned(transport: Transport) -> None:
    transport.declare(provisioned_mark())
    with pytest.raises(BrokerRefusal):
        transport.declare(Topology(exchanges=(Exchange(PROVISIONED, ExchangeType.FANOUT),)))


def test_a_deleted_queue_is_waited_for_by_the_patient(rig: Rig, transport: Transport) -> None:
    transport.declare(queue("standing"))
    events = Events()
    consumer = rig.transport(events).consumer(["standing"], prefetch=5, patient=True)
    transport.delete_queue("standing")
    waits = events.wait_for("consumer", ConnectionState.BLOCKED)
    assert "standing" in waits.detail
    assert consumer.receive(0.05) is None
    transport.declare(queue("standing"))
    publish_all(transport.publisher(), to("standing"), b"after")
    assert bodies(take(consumer, 1)) == [b"after"]


def test_the_patient_do_not_wait_for_what_was_never_there(transport: Transport) -> None:
    with pytest.raises(BrokerRefusal):
        transport.consumer(["never"], prefetch=1, patient=True)
