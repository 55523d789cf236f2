"""Conformance: connections break and come back; nothing is lost, what was in doubt comes again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError

import pytest

from flmq.common.errors import BrokerRefusal, BrokerUnavailable, TransportClosed
from flmq.transport import (
    Address,
    Binding,
    ConnectionState,
    Consumer,
    Delivery,
    Exchange,
    ExchangeType,
    Message,
    Publisher,
    PublishOutcome,
    QueueInfo,
    Topology,
    Transport,
)
from tests.transport.rigs import (
    PATIENCE,
    QUIET,
    Events,
    Rig,
    bodies,
    eventually,
    only,
    publish_all,
    queue,
    take,
    to,
)

EXCLUSIVE = (
    Topology((Exchange("x", ExchangeType.TOPIC),))
    + queue("own", durable=False, exclusive=True)
    + Topology(bindings=(Binding("x", "own", "#"),))
)


@pytest.fixture(autouse=True)
def _queue(transport: Transport) -> None:
    transport.declare(queue("q"))


def until(consumer: Consumer, *wanted: bytes) -> list[Delivery]:
    """Take and ack until everything wanted has come, in whatever number of copies."""
    taken: list[Delivery] = []
    while not set(wanted) <= set(bodies(taken)):
        taken += take(consumer, 1, ack=True)
    return taken


def test_what_was_not_acked_comes_again_in_order(rig: Rig, publisher: Publisher) -> None:
    publish_all(publisher, to("q"), *[b"%d" % number for number in range(6)])
    events = Events()
    consumer = rig.transport(events).consumer(["q"], prefetch=4)
    taken = take(consumer, 3)
    consumer.ack(taken[1])
    witness = rig.witness()
    # The ack has arrived when the message that it makes room for has left the queue.
    eventually(lambda: witness.inspect_queue("q") == QueueInfo("q", 1, 1))
    rig.cut()
    # Until it is noticed, what the consumer has in its buffer can still be received.
    events.wait_for("consumer", ConnectionState.LOST)
    again = only(consumer, 4)
    assert bodies(again) == [b"0", b"2", b"3", b"4"]
    assert all(delivery.redelivered for delivery in again)


def test_an_ack_of_a_lost_connection_is_dropped(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    publish_all(publisher, to("q"), b"1", b"2")
    consumer = transport.consumer(["q"], prefetch=2)
    stale = take(consumer, 2)
    rig.cut()
    again = take(consumer, 2)
    for delivery in stale:  # their tags are of no use, and must not ack the new deliveries
        consumer.ack(delivery)
    consumer.reject(stale[0], requeue=False)
    assert bodies(again) == [b"1", b"2"]
    rig.cut()
    assert bodies(only(consumer, 2, ack=True)) == [b"1", b"2"]


def test_a_lost_ack_brings_the_message_again(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    publish_all(publisher, to("q"), b"1", b"2")
    consumer = transport.consumer(["q"], prefetch=2)
    rig.lose_acks()
    take(consumer, 2, ack=True)
    only(consumer, 0)
    rig.cut()
    again = only(consumer, 2, ack=True)
    assert bodies(again) == [b"1", b"2"]
    assert all(delivery.redelivered for delivery in again)


def test_a_lost_confirm_brings_the_message_twice(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    witness = rig.witness()
    rig.lose_confirms()
    future = publisher.publish(to("q"), Message(b"1"))
    eventually(lambda: witness.inspect_queue("q") == QueueInfo("q", 1, 0))
    assert not future.done()
    rig.cut()
    assert future.result(PATIENCE) is PublishOutcome.CONFIRMED
    assert bodies(only(transport.consumer(["q"], prefetch=5), 2)) == [b"1", b"1"]


def test_what_is_published_meanwhile_waits_and_keeps_its_order(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    rig.down()
    sent = [b"%d" % number for number in range(50)]
    futures = [publisher.publish(to("q"), Message(body)) for body in sent]
    with pytest.raises(FutureTimeoutError):
        futures[0].result(QUIET)
    rig.up()
    assert {future.result(PATIENCE) for future in futures} == {PublishOutcome.CONFIRMED}
    assert bodies(only(transport.consumer(["q"], prefetch=100), 50)) == sent


def test_nothing_is_lost_over_many_cuts(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    consumer = transport.consumer(["q"], prefetch=20)
    sent = [b"%d" % number for number in range(500)]
    futures = []
    with ThreadPoolExecutor(1) as pool:
        received = pool.submit(until, consumer, *sent)
        for number, body in enumerate(sent):
            futures.append(publisher.publish(to("q"), Message(body)))
            if number % 100 == 50:
                rig.cut()
        assert {future.result(PATIENCE) for future in futures} == {PublishOutcome.CONFIRMED}
        taken = received.result(PATIENCE)
    first_seen = list(dict.fromkeys(bodies(taken)))
    assert sorted(first_seen) == sorted(sent)


def test_a_full_window_holds_the_publisher_until_the_broker_is_back(
    rig: Rig, publisher: Publisher
) -> None:
    rig.down()
    with ThreadPoolExecutor(1) as pool:
        sending = pool.submit(
            lambda: [publisher.publish(to("q"), Message(b"x")) for _ in range(600)]
        )
        with pytest.raises(FutureTimeoutError):
            sending.result(QUIET)
        rig.up()
        futures = sending.result(PATIENCE)
    assert {future.result(PATIENCE) for future in futures} == {PublishOutcome.CONFIRMED}


def test_an_exclusive_queue_is_declared_again_and_bound_and_consumed(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    transport.declare(EXCLUSIVE)
    consumer = transport.consumer(["own"], prefetch=5)
    publish_all(publisher, Address("x", "a.b"), b"before")
    take(consumer, 1)
    rig.cut()
    future = publisher.publish(Address("x", "a.b"), Message(b"after"))
    assert future.result(PATIENCE) is PublishOutcome.CONFIRMED
    # What was in the queue went with it: un-acked "before" does not come again.
    assert bodies(only(consumer, 1)) == [b"after"]


def test_an_exclusive_consumer_is_exclusive_again(rig: Rig, transport: Transport) -> None:
    consumer = transport.consumer(["q"], prefetch=1, exclusive=True)
    rig.cut()
    publish_all(transport.publisher(), to("q"), b"1")
    assert bodies(take(consumer, 1)) == [b"1"]


def test_a_queue_deleted_under_its_consumer_is_declared_again(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    consumer = transport.consumer(["q"], prefetch=5)
    publish_all(publisher, to("q"), b"lost")
    take(consumer, 1)
    rig.witness().delete_queue("q")
    eventually(lambda: transport.inspect_queue("q") == QueueInfo("q", 0, 1))
    publish_all(publisher, to("q"), b"found")
    assert bodies(only(consumer, 1)) == [b"found"]


def test_a_deleted_queue_of_others_ends_the_consumer(rig: Rig, transport: Transport) -> None:
    consumer = rig.transport().consumer(["q"], prefetch=5)
    transport.delete_queue("q")
    for _ in range(2):
        with pytest.raises(BrokerRefusal, match="'q'"):
            consumer.receive(PATIENCE)


def test_a_queue_deleted_on_purpose_stays_away(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    transport.delete_queue("q")
    rig.cut()
    assert publisher.publish(to("q"), Message(b"")).result(PATIENCE) is PublishOutcome.UNROUTABLE
    assert transport.inspect_queue("q") is None


def test_the_listener_hears_of_loss_and_return(rig: Rig) -> None:
    events = Events()
    transport = rig.transport(events)
    transport.publisher()
    transport.consumer(["q"], prefetch=1)
    roles = ("control", "publisher", "consumer")
    for role in roles:
        events.wait_for(role, ConnectionState.CONNECTED)
    events.clear()
    rig.down()
    for role in roles:
        lost = events.wait_for(role, ConnectionState.LOST)
        assert "next try" in lost.detail
        assert "\n" not in lost.detail
    assert not any(event.state is ConnectionState.CONNECTED for event in events.seen)
    rig.up()
    for role in roles:
        events.wait_for(role, ConnectionState.CONNECTED)
    transport.close()
    events.wait_for("control", ConnectionState.CLOSED)


def test_opening_while_nobody_answers_fails_at_once(rig: Rig) -> None:
    rig.down()
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        rig.transport()
    assert time.monotonic() - began < PATIENCE / 2
    rig.up()


@pytest.mark.parametrize("what", ["declare", "inspect", "publisher", "consumer"])
def test_an_open_transport_waits_for_the_broker(rig: Rig, transport: Transport, what: str) -> None:
    uses = {
        "declare": lambda: transport.declare(queue("r")),
        "inspect": lambda: transport.inspect_queue("q"),
        "publisher": lambda: publish_all(transport.publisher(), to("q"), b"1"),
        "consumer": lambda: transport.consumer(["q"], prefetch=1),
    }
    rig.down()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(uses[what])
        with pytest.raises(FutureTimeoutError):
            waiting.result(QUIET)
        rig.up()
        waiting.result(PATIENCE)


def test_closing_does_not_wait_for_a_broker_that_is_away(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    transport.declare(EXCLUSIVE)
    transport.consumer(["own"], prefetch=1)
    transport.consumer(["q"], prefetch=1)
    rig.down()
    future = publisher.publish(to("q"), Message(b""))
    began = time.monotonic()
    publisher.close(timeout=0.1)
    with pytest.raises(TransportClosed, match="before the broker confirmed"):
        future.result(0)
    transport.close()
    assert time.monotonic() - began < PATIENCE / 2
    rig.up()


@pytest.mark.parametrize("what", ["declare", "publisher", "consumer"])
def test_close_ends_the_waiting_for_a_broker_that_is_away(
    rig: Rig, transport: Transport, what: str
) -> None:
    uses: dict[str, Callable[[], object]] = {
        "declare": lambda: transport.declare(queue("r")),
        "publisher": transport.publisher,
        "consumer": lambda: transport.consumer(["q"], prefetch=1),
    }
    rig.down()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(uses[what])
        with pytest.raises(FutureTimeoutError):
            waiting.result(QUIET)
        transport.close()
        with pytest.raises(TransportClosed):
            waiting.result(PATIENCE)
    rig.up()
