"""What the memory broker does beyond the interface: faults on demand, and time in one's hands."""

from __future__ import annotations

import pytest

from flmq.common.errors import BrokerRefusal, BrokerUnavailable
from flmq.testing import ManualClock, MemoryBroker, MemoryTransport
from flmq.transport import (
    ConnectionState,
    Exchange,
    ExchangeType,
    Message,
    PublishOutcome,
    QueueInfo,
    Topology,
)
from tests.transport.rigs import Events, bodies, eventually, only, publish_all, queue, take, to


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    return MemoryBroker(clock=clock)


@pytest.fixture
def transport(broker: MemoryBroker) -> MemoryTransport:
    transport = MemoryTransport(broker)
    transport.declare(queue("q"))
    return transport


def test_time_stands_still_until_it_is_moved(
    clock: ManualClock, transport: MemoryTransport
) -> None:
    transport.declare(queue("week", x_expires=7 * 24 * 3600 * 1000))
    transport.publisher().publish(to("q"), Message(b"", expiration=60.0)).result(0)
    clock.advance(59.9)
    assert transport.inspect_queue("q") == QueueInfo("q", 1, 0)
    clock.advance(0.1)
    assert transport.inspect_queue("q") == QueueInfo("q", 0, 0)
    clock.advance(7 * 24 * 3600)
    assert transport.inspect_queue("week") is None
    with pytest.raises(ValueError, match="only goes forward"):
        clock.advance(-1)


def test_a_message_that_expires_untouched_is_buried_at_its_time(
    clock: ManualClock, transport: MemoryTransport
) -> None:
    transport.declare(
        Topology((Exchange("dlx", ExchangeType.FANOUT),))
        + queue("mortal", x_dead_letter_exchange="", x_dead_letter_routing_key="q")
    )
    transport.publisher().publish(to("mortal"), Message(b"1", expiration=5.0)).result(0)
    consumer = transport.consumer(["q"], prefetch=1)
    clock.advance(4)
    assert consumer.receive(0) is None
    clock.advance(1)
    assert bodies(only(consumer, 1)) == [b"1"]


def test_a_circle_of_dead_letters_ends(clock: ManualClock, transport: MemoryTransport) -> None:
    transport.declare(
        queue("a", x_dead_letter_exchange="", x_dead_letter_routing_key="b", x_message_ttl=10)
        + queue("b", x_dead_letter_exchange="", x_dead_letter_routing_key="a", x_message_ttl=10)
    )
    publish_all(transport.publisher(), to("a"), b"1")
    clock.advance(0.02)
    assert transport.inspect_queue("b") == QueueInfo("b", 1, 0)
    clock.advance(0.02)
    assert transport.inspect_queue("a") == QueueInfo("a", 0, 0)


def test_a_delay_keeps_the_order(clock: ManualClock, broker: MemoryBroker) -> None:
    transport = MemoryTransport(broker)
    transport.declare(queue("q"))
    publisher, consumer = transport.publisher(), transport.consumer(["q"], prefetch=9)
    broker.delay(2.0)
    first = publisher.publish(to("q"), Message(b"1"))
    broker.delay(0)
    second = publisher.publish(to("q"), Message(b"2"))
    assert consumer.receive(0) is None
    assert not first.done()
    clock.advance(2)
    assert first.result(0) is second.result(0) is PublishOutcome.CONFIRMED
    assert bodies(take(consumer, 2)) == [b"1", b"2"]


def test_what_is_delayed_when_the_connection_drops_arrives_once(
    clock: ManualClock, broker: MemoryBroker, transport: MemoryTransport
) -> None:
    broker.delay(2.0)
    future = transport.publisher().publish(to("q"), Message(b"1"))
    broker.drop_connections()
    clock.advance(10)
    assert future.result(0) is PublishOutcome.CONFIRMED
    only(transport.consumer(["q"], prefetch=9), 1)


def test_a_delay_in_real_time_needs_nobody_to_move_it() -> None:
    broker = MemoryBroker()
    transport = MemoryTransport(broker)
    transport.declare(queue("q"))
    broker.delay(0.02)
    publish_all(transport.publisher(), to("q"), b"1", b"2")


def test_duplicates(broker: MemoryBroker, transport: MemoryTransport) -> None:
    broker.duplicate(2)
    publish_all(transport.publisher(), to("q"), b"1", b"2", b"3")
    taken = only(transport.consumer(["q"], prefetch=9), 5)
    assert bodies(taken) == [b"1", b"1", b"2", b"2", b"3"]


def test_another_order(broker: MemoryBroker, transport: MemoryTransport) -> None:
    sent = [b"%d" % number for number in range(20)]

    def order() -> list[bytes]:
        broker.reorder(7)
        publish_all(transport.publisher(), to("q"), *sent)
        broker.reorder(None)
        consumer = transport.consumer(["q"], prefetch=20)
        taken = only(consumer, 20, ack=True)
        consumer.close()
        return bodies(taken)

    first = order()
    assert first != sent
    assert sorted(first) == sorted(sent)
    assert order() == first  # the same seed, the same order


def test_a_blocked_broker_holds_publishers_and_no_consumer(broker: MemoryBroker) -> None:
    events = Events()
    transport = MemoryTransport(broker, events)
    transport.declare(queue("q"))
    publisher, consumer = transport.publisher(), transport.consumer(["q"], prefetch=1)
    publish_all(publisher, to("q"), b"1")
    broker.block()
    events.clear()
    future = publisher.publish(to("q"), Message(b"2"))
    assert bodies(only(consumer, 1, ack=True)) == [b"1"]
    assert not future.done()
    transport.publisher()
    events.wait_for("publisher", ConnectionState.BLOCKED)
    broker.unblock()
    assert future.result(0) is PublishOutcome.CONFIRMED
    assert events.seen[-1].detail == "no longer blocked"


def test_a_restart_keeps_what_is_durable_and_persistent(
    broker: MemoryBroker, transport: MemoryTransport
) -> None:
    transport.declare(queue("fleeting", durable=False))
    publisher = transport.publisher()
    publish_all(publisher, to("q"), b"kept")
    publish_all(publisher, to("fleeting"), b"lost")
    publisher.publish(to("q"), Message(b"lost", persistent=False)).result(0)
    broker.restart()
    [kept] = only(transport.consumer(["q"], prefetch=9), 1)
    assert (kept.message.body, kept.redelivered) == (b"kept", True)
    assert transport.inspect_queue("fleeting") == QueueInfo("fleeting", 0, 0)  # declared again


def test_the_size_limit_can_be_chosen() -> None:
    transport = MemoryTransport(MemoryBroker(max_message_size=10))
    transport.declare(queue("q"))
    future = transport.publisher().publish(to("q"), Message(b"x" * 11))
    with pytest.raises(BrokerRefusal, match=r"11 bytes .* max_message_size of 10 bytes"):
        future.result(0)


def test_the_user_id_is_checked_against_the_connection() -> None:
    transport = MemoryTransport(MemoryBroker(), user="alice")
    transport.declare(queue("q"))
    publisher = transport.publisher()
    publisher.publish(to("q"), Message(b"", user_id="alice")).result(0)
    with pytest.raises(BrokerRefusal, match="user_id 'bob'"):
        publisher.publish(to("q"), Message(b"", user_id="bob")).result(0)


def test_unknown_queue_arguments_are_refused(transport: MemoryTransport) -> None:
    with pytest.raises(BrokerRefusal, match="unknown argument 'x-max-lenght'"):
        transport.declare(queue("r", x_max_lenght=1))


def test_nobody_connects_while_it_is_down(broker: MemoryBroker) -> None:
    broker.down()
    with pytest.raises(BrokerUnavailable, match=r"call its up\(\)"):
        MemoryTransport(broker)


def test_a_thousand_clients_are_ordinary() -> None:
    """One consumer each and a roll call to all of them by one message."""
    transport = MemoryTransport(MemoryBroker())
    names = [f"client.{number}" for number in range(1000)]
    transport.declare(Topology((Exchange("x", ExchangeType.DIRECT),)))
    for name in names:
        transport.declare(queue(name))
    consumers = [transport.consumer([name], prefetch=1, exclusive=True) for name in names]
    publisher = transport.publisher()
    for name in names:
        publisher.publish(to(name), Message(name.encode()))
    for name, consumer in zip(names, consumers, strict=True):
        assert bodies(take(consumer, 1, ack=True)) == [name.encode()]
    eventually(lambda: transport.inspect_queue(names[0]) == QueueInfo(names[0], 0, 1))


def test_a_deleted_queue_is_not_there_again_at_once(
    clock: ManualClock, broker: MemoryBroker, transport: MemoryTransport
) -> None:
    """As over RabbitMQ, where its consumer has to hear of it first: nobody has what comes then."""
    consumer = transport.consumer(["q"], prefetch=1)
    with MemoryTransport(broker) as other:
        publisher = other.publisher()
        other.delete_queue("q")
        lost = publisher.publish(to("q"), Message(b"lost"))
        assert lost.result(0) is PublishOutcome.UNROUTABLE
        assert other.inspect_queue("q") is None
        clock.advance(1.0)
        assert publisher.publish(to("q"), Message(b"1")).result(0) is PublishOutcome.CONFIRMED
    assert bodies(only(consumer, 1)) == [b"1"]


def test_a_wiped_broker_has_nothing_until_each_one_has_come_back(
    broker: MemoryBroker, transport: MemoryTransport
) -> None:
    """Who came last is back first: what it sends then finds no queue of the others."""
    publish_all(transport.publisher(), to("q"), b"gone")
    late = MemoryTransport(broker)
    publisher = late.publisher()
    broker.down()
    waiting = publisher.publish(to("q"), Message(b"too early"))
    broker.wipe()
    broker.up()
    assert waiting.result(0) is PublishOutcome.UNROUTABLE
    assert transport.inspect_queue("q") == QueueInfo("q", 0, 0)
    late.close()
