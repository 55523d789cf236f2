"""Conformance: declaring, limits, expiry, dead letters, locks."""

from __future__ import annotations

from typing import Any

import pytest

from flmq.common.errors import BrokerRefusal, ResourceLocked
from flmq.transport import (
    Binding,
    Consumer,
    Exchange,
    ExchangeType,
    Message,
    Publisher,
    PublishOutcome,
    Queue,
    QueueInfo,
    QueueType,
    Topology,
    Transport,
)
from tests.transport.rigs import (
    PATIENCE,
    QUIET,
    Rig,
    bodies,
    eventually,
    only,
    publish_all,
    queue,
    take,
    to,
)


def with_dead(name: str, kind: QueueType = QueueType.CLASSIC, **arguments: Any) -> Topology:
    """Topology of a queue, and "dead", which gets its dead letters."""
    return (
        Topology((Exchange("dlx", ExchangeType.FANOUT),))
        + queue("dead")
        + queue(name, kind=kind, x_dead_letter_exchange="dlx", **arguments)
        + Topology(bindings=(Binding("dlx", "dead", ""),))
    )


def dead_letters(transport: Transport, count: int) -> list[tuple[bytes, object]]:
    consumer = transport.consumer(["dead"], prefetch=9)
    taken = only(consumer, count, ack=True)
    consumer.close()
    for delivery in taken:
        assert delivery.message.headers["x-first-death-queue"] == "q"
        assert delivery.message.expiration is None
    return [
        (bytes(delivery.message.body), delivery.message.headers["x-first-death-reason"])
        for delivery in taken
    ]


# Declaring


def test_declaring_again_changes_nothing(transport: Transport, publisher: Publisher) -> None:
    topology = with_dead("q", x_max_length=5)
    transport.declare(topology)
    publish_all(publisher, to("q"), b"1")
    transport.declare(topology)
    assert transport.inspect_queue("q") == QueueInfo("q", 1, 0)


@pytest.mark.parametrize(
    "other",
    [
        queue("q", x_max_length=5, x_overflow="reject-publish"),
        queue("q", x_single_active_consumer=True),
        queue("q", kind=QueueType.QUORUM, x_max_length=6),
        queue("q", durable=False, exclusive=True, x_max_length=5),
        Topology((Exchange("x", ExchangeType.FANOUT),)),
    ],
    ids=["argument", "another argument", "type", "exclusive", "exchange"],
)
def test_another_form_of_what_exists_is_refused(
    rig: Rig, transport: Transport, other: Topology
) -> None:
    transport.declare(Topology((Exchange("x", ExchangeType.TOPIC),)) + queue("q", x_max_length=5))
    # RabbitMQ tells of a lock where a queue's exclusiveness differs.
    with pytest.raises((BrokerRefusal, ResourceLocked)):
        rig.transport().declare(other)
    transport.declare(queue("q", x_max_length=5))


@pytest.mark.parametrize(
    "other",
    [
        queue("q", x_max_length=3, x_expires=60_000),
        queue("q", x_max_length=1, x_message_ttl=10, x_max_length_bytes=1),
        queue("q"),
    ],
    ids=["more", "less", "none"],
)
def test_a_queue_that_has_other_amounts_is_used_as_it_is(
    rig: Rig,
    transport: Transport,
    publisher: Publisher,
    other: Topology,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An upgrade of flmq, or a person, may want other bounds: no reason to delete what waits."""
    transport.declare(queue("q", x_max_length=2))
    rig.transport().declare(other)
    assert "used as it is" in caplog.text
    publish_all(publisher, to("q"), b"1", b"2", b"3")
    assert transport.inspect_queue("q") == QueueInfo("q", 2, 0)
    consumer = transport.consumer(["q"], prefetch=5)
    assert [delivery.message.body for delivery in take(consumer, 2)] == [b"2", b"3"]


@pytest.mark.parametrize(
    "wrong",
    [
        queue("q", x_overflow="sideways"),
        queue("q", x_max_length=-1),
        queue("q", x_max_length="many"),
        queue("q", x_expires=0),
        queue("q", kind=QueueType.QUORUM, durable=False, exclusive=True),
        queue("q" * 256),
    ],
    ids=["overflow", "negative", "text", "expires", "quorum", "name"],
)
def test_senseless_arguments_are_refused(transport: Transport, wrong: Topology) -> None:
    with pytest.raises(BrokerRefusal):
        transport.declare(wrong)
    assert transport.inspect_queue("q") is None


def test_inspecting_and_deleting(transport: Transport, publisher: Publisher) -> None:
    assert transport.inspect_queue("q") is None
    transport.delete_queue("q")
    transport.declare(queue("q"))
    publish_all(publisher, to("q"), b"1", b"2")
    assert transport.inspect_queue("q") == QueueInfo("q", 2, 0)
    consumer = transport.consumer(["q"], prefetch=1)
    take(consumer, 1)
    assert transport.inspect_queue("q") == QueueInfo("q", 1, 1)
    transport.delete_queue("q")
    assert transport.inspect_queue("q") is None


def test_a_queue_that_is_not_there_cannot_be_consumed(transport: Transport) -> None:
    with pytest.raises(BrokerRefusal, match="'q'"):
        transport.consumer(["q"], prefetch=1)


# Limits


def test_a_full_queue_drops_its_oldest(transport: Transport, publisher: Publisher) -> None:
    transport.declare(with_dead("q", x_max_length=2, x_overflow="drop-head"))
    publish_all(publisher, to("q"), b"1", b"2", b"3", b"4")
    assert dead_letters(transport, 2) == [(b"1", "maxlen"), (b"2", "maxlen")]
    assert bodies(only(transport.consumer(["q"], prefetch=9), 2)) == [b"3", b"4"]


def test_a_queue_full_of_bytes_drops_its_oldest(transport: Transport, publisher: Publisher) -> None:
    transport.declare(queue("q", x_max_length_bytes=1000))
    publish_all(publisher, to("q"), b"1" * 400, b"2" * 400, b"3" * 400)
    assert bodies(only(transport.consumer(["q"], prefetch=9), 2)) == [b"2" * 400, b"3" * 400]


def test_a_queue_that_rejects_holds_up_nobody_else(
    transport: Transport, publisher: Publisher
) -> None:
    transport.declare(queue("q", x_max_length=2, x_overflow="reject-publish") + queue("free"))
    publish_all(publisher, to("q"), b"1", b"2")
    waiting = publisher.publish(to("q"), Message(b"3"))
    publish_all(publisher, to("free"), b"other")
    assert not waiting.done()
    consumer = transport.consumer(["q"], prefetch=9)
    take(consumer, 2, ack=True)
    assert waiting.result(PATIENCE) is PublishOutcome.CONFIRMED
    assert bodies(take(consumer, 1)) == [b"3"]


# Expiry


def test_an_expired_message_is_not_delivered(transport: Transport, publisher: Publisher) -> None:
    transport.declare(queue("q"))
    publisher.publish(to("q"), Message(b"old", expiration=0.05)).result(PATIENCE)
    publish_all(publisher, to("q"), b"new")
    eventually(lambda: transport.inspect_queue("q") == QueueInfo("q", 1, 0))
    assert bodies(only(transport.consumer(["q"], prefetch=9), 1)) == [b"new"]


def test_a_message_that_waits_for_nobody_is_delivered_now_or_never(
    transport: Transport, publisher: Publisher
) -> None:
    transport.declare(queue("q"))
    at_once = Message(b"now", expiration=0.0)
    publisher.publish(to("q"), at_once).result(PATIENCE)
    eventually(lambda: transport.inspect_queue("q") == QueueInfo("q", 0, 0))
    consumer = transport.consumer(["q"], prefetch=9)
    publisher.publish(to("q"), at_once).result(PATIENCE)
    only(consumer, 1)


def test_what_was_delivered_does_not_expire(transport: Transport, publisher: Publisher) -> None:
    transport.declare(queue("q"))
    consumer = transport.consumer(["q"], prefetch=1)
    publisher.publish(to("q"), Message(b"held", expiration=0.1)).result(PATIENCE)
    [held] = only(consumer, 1)
    assert held.message.expiration == 0.1
    consumer.ack(held)


def test_a_queue_that_nobody_uses_expires(transport: Transport, publisher: Publisher) -> None:
    transport.declare(queue("q", x_expires=300))
    consumer = transport.consumer(["q"], prefetch=1)
    assert consumer.receive(5 * QUIET) is None  # longer than it may be unused
    assert transport.inspect_queue("q") == QueueInfo("q", 0, 1)
    consumer.close()

    def is_gone() -> bool:  # publishing is no use, looking at it would be
        future = publisher.publish(to("q"), Message(b""))
        return future.result(PATIENCE) is PublishOutcome.UNROUTABLE

    eventually(is_gone)


# Dead letters


@pytest.mark.parametrize("kind", [QueueType.CLASSIC, QueueType.QUORUM])
def test_dead_letters_say_why(transport: Transport, publisher: Publisher, kind: QueueType) -> None:
    transport.declare(with_dead("q", kind))
    publisher.publish(to("q"), Message(b"old", expiration=0.05)).result(PATIENCE)
    consumer = transport.consumer(["dead"], prefetch=1)
    take(consumer, 1)  # nobody touches q: it expires by itself
    consumer.close()
    assert dead_letters(transport, 1) == [(b"old", "expired")]
    publish_all(publisher, to("q"), b"bad")
    consumer = transport.consumer(["q"], prefetch=1)
    consumer.reject(take(consumer, 1)[0], requeue=False)
    [delivery] = take(transport.consumer(["dead"], prefetch=1), 1)
    assert delivery.message.headers["x-first-death-reason"] == "rejected"


def test_a_quorum_queue_gives_up_on_what_keeps_coming_back(
    transport: Transport, publisher: Publisher
) -> None:
    transport.declare(with_dead("q", QueueType.QUORUM, x_delivery_limit=2))
    publish_all(publisher, to("q"), b"poison")
    consumer = transport.consumer(["q"], prefetch=1)
    for redelivered in (False, True, True):
        [delivery] = take(consumer, 1)
        assert delivery.redelivered is redelivered
        consumer.reject(delivery, requeue=True)
    only(consumer, 0)
    assert dead_letters(transport, 1) == [(b"poison", "delivery_limit")]


# Locks


def consumer_of(transport: Transport, *, exclusive: bool) -> Consumer:
    return transport.consumer(["q"], prefetch=5, exclusive=exclusive)


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_an_exclusive_consumer_is_alone(
    rig: Rig, transport: Transport, first: bool, second: bool
) -> None:
    transport.declare(queue("q"))
    holder = consumer_of(transport, exclusive=first)
    other = rig.transport()
    with pytest.raises(ResourceLocked) as caught:
        consumer_of(other, exclusive=second)
    assert caught.value.queue == "q"
    holder.close()
    consumer_of(other, exclusive=second)


@pytest.mark.parametrize(
    "topology",
    [queue("q", kind=QueueType.QUORUM), queue("q", x_single_active_consumer=True)],
    ids=["quorum", "single active"],
)
def test_exclusive_consumers_are_refused_where_they_would_not_be(
    transport: Transport, topology: Topology
) -> None:
    transport.declare(topology)
    with pytest.raises(BrokerRefusal, match="cannot be consumed exclusively"):
        consumer_of(transport, exclusive=True)


def test_an_exclusive_queue_belongs_to_its_transport(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    own = queue("q", durable=False, exclusive=True)
    transport.declare(own)
    transport.declare(own)
    other = rig.transport()
    for use in (
        lambda: other.declare(own),
        lambda: other.inspect_queue("q"),
        lambda: other.delete_queue("q"),
        lambda: other.consumer(["q"], prefetch=1),
    ):
        with pytest.raises(ResourceLocked) as caught:
            use()
        assert caught.value.queue == "q"
    publish_all(other.publisher(), to("q"), b"1")  # anybody may publish to it
    assert bodies(take(transport.consumer(["q"], prefetch=1), 1)) == [b"1"]
    transport.close()
    assert other.inspect_queue("q") is None
    other.declare(own)


def test_exclusive_and_shared_queues_in_one_consumer(
    transport: Transport, publisher: Publisher
) -> None:
    transport.declare(queue("q", durable=False, exclusive=True) + queue("r"))
    publish_all(publisher, to("q"), b"q")
    publish_all(publisher, to("r"), b"r")
    assert sorted(bodies(only(transport.consumer(["q", "r"], prefetch=4), 2))) == [b"q", b"r"]


@pytest.mark.parametrize("kind", [QueueType.CLASSIC, QueueType.QUORUM])
def test_a_single_active_consumer_is_followed_by_the_next(
    rig: Rig, transport: Transport, publisher: Publisher, kind: QueueType
) -> None:
    transport.declare(queue("q", kind=kind, x_single_active_consumer=True))
    first = consumer_of(transport, exclusive=False)
    standby = consumer_of(rig.transport(), exclusive=False)
    publish_all(publisher, to("q"), b"1", b"2")
    first.ack(only(first, 2)[0])
    only(standby, 0)
    first.close()
    [second] = only(standby, 1)
    assert second.redelivered
    assert second.message.body == b"2"


def test_what_is_refused_among_many_is_named(rig: Rig, transport: Transport) -> None:
    """Though they are declared, and consumed, many at a time."""
    names = [f"many{number}" for number in range(230)]
    other = rig.transport()
    other.declare(Topology(queues=(Queue("many210", QueueType.QUORUM),)))
    with pytest.raises(BrokerRefusal, match="many210"):
        transport.declare(Topology(queues=tuple(Queue(name, durable=False) for name in names)))
    other.delete_queue("many210")
    transport.declare(Topology(queues=tuple(Queue(name, durable=False) for name in names)))
    held = other.consumer(["many211"], prefetch=1, exclusive=True)
    with pytest.raises(ResourceLocked) as locked:
        transport.consumer(names, prefetch=9, exclusive=True)
    assert locked.value.queue == "many211"
    held.close()
    transport.consumer(names, prefetch=9, exclusive=True)
