"""How large a broker's messages may be is found out once, and only where it matters."""

from __future__ import annotations

from flmq.broker.node import PrivateNode
from flmq.messaging import Sender
from flmq.testing import MemoryBroker, MemoryTransport
from flmq.transport import TASKS, UPLOADS, Address, federation_topology, job_topology, size_key
from flmq.transport.rabbitmq import RabbitMQTransport

NOBODY = Address(UPLOADS, size_key("main", "a"))


def test_the_limit_is_asked_for_once_and_nobody_hears_of_it() -> None:
    broker = MemoryBroker(max_message_size=300_000)
    transport = MemoryTransport(broker)
    transport.declare(federation_topology() + job_topology("job"))
    sender = Sender(transport.publisher())
    assert sender.chunk_bytes(Address(TASKS, "!size")) == 300_000
    broker.max_message_size = 1 << 24
    assert sender.chunk_bytes(NOBODY) == 300_000
    transport.close()


def test_a_real_broker_is_asked_as_well(private_node: PrivateNode) -> None:
    for limit, expected in ((16_777_216, 1 << 20), (200_000, 200_000)):
        private_node.evaluate(_SET.format(limit))
        with RabbitMQTransport(private_node.url) as transport:
            transport.declare(federation_topology() + job_topology("job"))
            assert Sender(transport.publisher()).chunk_bytes(NOBODY) == expected


_SET = (
    "application:set_env(rabbit, max_message_size, {0}), "
    "persistent_term:put(max_message_size, {0})."
)
