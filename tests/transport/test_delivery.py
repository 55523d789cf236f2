"""Conformance: messages arrive whole, in order, and come again until they are acked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor, wait

import pytest

from flmq.common.errors import BrokerRefusal, TransportClosed
from flmq.transport import (
    Address,
    Message,
    Publisher,
    PublishOutcome,
    Queue,
    Topology,
    Transport,
)
from flmq.transport.base import HeaderValue
from tests.transport.rigs import (
    PATIENCE,
    QUIET,
    MemoryRig,
    Rig,
    bodies,
    only,
    publish_all,
    queue,
    take,
    to,
)

MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def _queue(transport: Transport) -> None:
    transport.declare(queue("q"))


def test_messages_arrive_in_order(transport: Transport, publisher: Publisher) -> None:
    sent = [b"%d" % number for number in range(300)]
    publish_all(publisher, to("q"), *sent)
    assert bodies(only(transport.consumer(["q"], prefetch=10), 300, ack=True)) == sent


@pytest.mark.parametrize("body", [b"", b"\x00", b"x" * (15 * MIB)], ids=["empty", "nul", "15MiB"])
def test_bodies_of_any_size_arrive_whole(
    transport: Transport, publisher: Publisher, body: bytes
) -> None:
    publish_all(publisher, to("q"), body)
    [delivery] = take(transport.consumer(["q"], prefetch=1), 1)
    assert delivery.message.body == body
    assert isinstance(delivery.message.body, bytes)


def test_a_body_is_copied_when_it_is_published(transport: Transport, publisher: Publisher) -> None:
    content = bytearray(b"before")
    future = publisher.publish(to("q"), Message(memoryview(content)))
    content[:] = b"after!"
    assert future.result(PATIENCE) is PublishOutcome.CONFIRMED
    assert bodies(take(transport.consumer(["q"], prefetch=1), 1)) == [b"before"]


@pytest.mark.parametrize(
    "view",
    [
        memoryview(b"0123456789ab").cast("I"),
        memoryview(b"0123456789ab").cast("B", (3, 4)),
        memoryview(b"0123456789ab")[::2],
        memoryview(b"0123456789ab")[3:9],
    ],
    ids=["numbers", "matrix", "every second", "part"],
)
def test_a_view_of_any_form_arrives_as_its_bytes(
    transport: Transport, publisher: Publisher, view: memoryview
) -> None:
    confirmed = publisher.publish(to("q"), Message(view)).result(PATIENCE)
    assert confirmed is PublishOutcome.CONFIRMED
    assert bodies(take(transport.consumer(["q"], prefetch=1), 1)) == [view.tobytes()]


def test_properties_arrive_as_they_were_sent(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    headers: dict[str, HeaderValue] = {
        "truth": True,
        "whole": -7,
        "large": 2**62,
        "text": "grüße",
        "empty": "",
        "octets": b"\x00\xff",
    }
    message = Message(
        b"body",
        type="flmq.task",
        message_id="m" * 255,
        correlation_id="c",
        user_id=rig.user,
        headers=headers,
        expiration=60.5,
        persistent=False,
    )
    publisher.publish(to("q"), message).result(PATIENCE)
    [delivery] = take(transport.consumer(["q"], prefetch=1), 1)
    assert delivery.message == message
    assert {k: type(v) for k, v in delivery.message.headers.items()} == {
        k: type(v) for k, v in headers.items()
    }
    assert (delivery.queue, delivery.exchange, delivery.routing_key) == ("q", "", "q")
    assert not delivery.redelivered


def test_a_bare_message_arrives_bare(transport: Transport, publisher: Publisher) -> None:
    publisher.publish(to("q"), Message(b"")).result(PATIENCE)
    [delivery] = take(transport.consumer(["q"], prefetch=1), 1)
    assert delivery.message == Message(b"")


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message(b"", message_id="m" * 256), "message_id is 256 bytes"),
        (Message(b"", type="ü" * 128), "type is 256 bytes"),
        (Message(b"", headers={"h" * 256: 1}), "header name is 256 bytes"),
        (Message(b"", headers={"h": "x" * 70_000}), "headers take"),
        (Message(b"", headers={"h": 2**63}), "does not fit 64 bits"),
        (Message(b"", expiration=-1.0), "expiration"),
        (Message(b"", expiration=5e6), "expiration"),
        (Message(b"", user_id="somebody-else"), "user_id"),
        (Message(b"x" * (16 * MIB + 1)), f"{16 * MIB + 1} bytes is larger"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_carried_is_refused_and_the_publisher_lives_on(
    transport: Transport, publisher: Publisher, message: Message, words: str
) -> None:
    before = publisher.publish(to("q"), Message(b"before"))
    refused = publisher.publish(to("q"), message)
    after = publisher.publish(to("q"), Message(b"after"))
    with pytest.raises(BrokerRefusal, match=words):
        refused.result(PATIENCE)
    assert before.result(PATIENCE) is after.result(PATIENCE) is PublishOutcome.CONFIRMED
    # A message whose confirm was under way when the channel closed may have come twice.
    consumer, seen = transport.consumer(["q"], prefetch=9), set[bytes]()
    while seen != {b"before", b"after"}:
        seen.update(bodies(take(consumer, 1)))


@pytest.mark.parametrize(
    "message",
    [Message("text"), Message(b"", headers={"h": 0.5})],  # type: ignore[arg-type, dict-item]
    ids=["body", "header"],
)
def test_a_wrong_type_is_the_callers_mistake(publisher: Publisher, message: Message) -> None:
    with pytest.raises(TypeError, match=r"bytes"):
        publisher.publish(to("q"), message)


def test_unroutable_messages_are_told_apart(publisher: Publisher) -> None:
    keys = ["q", "nobody", "q", "nobody", "nobody", "q"]
    futures = [publisher.publish(to(key), Message(b"the same")) for key in keys]
    assert [future.result(PATIENCE) for future in futures] == [
        PublishOutcome.CONFIRMED if key == "q" else PublishOutcome.UNROUTABLE for key in keys
    ]


def test_what_is_not_mandatory_is_dropped_in_silence(publisher: Publisher) -> None:
    future = publisher.publish(to("nobody"), Message(b""), mandatory=False)
    assert future.result(PATIENCE) is PublishOutcome.CONFIRMED


def test_a_missing_exchange_fails_only_its_messages(
    transport: Transport, publisher: Publisher
) -> None:
    exchanges = ["", "nope", "", "nope", ""]
    futures = [publisher.publish(Address(name, "q"), Message(b"")) for name in exchanges]
    wait(futures, PATIENCE)
    for name, future in zip(exchanges, futures, strict=True):
        if name:
            with pytest.raises(BrokerRefusal, match="no exchange 'nope'"):
                future.result(0)
        else:
            assert future.result(0) is PublishOutcome.CONFIRMED


def test_a_rejected_message_comes_again_at_the_head(
    transport: Transport, publisher: Publisher
) -> None:
    publish_all(publisher, to("q"), b"1", b"2", b"3")
    consumer = transport.consumer(["q"], prefetch=1)
    [first] = take(consumer, 1)
    consumer.reject(first, requeue=True)
    again = only(consumer, 3, ack=True)
    assert bodies(again) == [b"1", b"2", b"3"]
    assert [delivery.redelivered for delivery in again] == [True, False, False]


def test_a_dropped_message_is_gone(transport: Transport, publisher: Publisher) -> None:
    publish_all(publisher, to("q"), b"1", b"2")
    consumer = transport.consumer(["q"], prefetch=1)
    consumer.reject(take(consumer, 1)[0], requeue=False)
    assert bodies(only(consumer, 1)) == [b"2"]


def test_what_a_closed_consumer_had_comes_again_in_order(
    transport: Transport, publisher: Publisher
) -> None:
    publish_all(publisher, to("q"), *[b"%d" % number for number in range(6)])
    first = transport.consumer(["q"], prefetch=4)
    taken = take(first, 3)
    first.ack(taken[1])
    first.close()  # 0 and 2 in hand, 3 and 4 in its buffer
    again = only(transport.consumer(["q"], prefetch=10), 5)
    assert bodies(again) == [b"0", b"2", b"3", b"4", b"5"]
    assert [delivery.redelivered for delivery in again] == [True, True, True, True, False]


def test_prefetch_bounds_what_is_not_acked(transport: Transport, publisher: Publisher) -> None:
    publish_all(publisher, to("q"), b"1", b"2", b"3", b"4")
    consumer = transport.consumer(["q"], prefetch=2)
    taken = only(consumer, 2)
    consumer.ack(taken[1])
    assert bodies(only(consumer, 1)) == [b"3"]


def test_prefetch_counts_over_all_queues(transport: Transport, publisher: Publisher) -> None:
    transport.declare(queue("r"))
    publish_all(publisher, to("q"), b"q1", b"q2")
    publish_all(publisher, to("r"), b"r1", b"r2")
    consumer = transport.consumer(["q", "r"], prefetch=1)
    seen = []
    for _ in range(4):
        [delivery] = only(consumer, 1)
        seen += bodies([delivery])
        consumer.ack(delivery)
    assert sorted(seen) == [b"q1", b"q2", b"r1", b"r2"]


def test_each_queue_has_its_share_of_the_prefetch(
    transport: Transport, publisher: Publisher
) -> None:
    """As RabbitMQ counts: what waits in one queue takes no room from another, nor gets its room."""
    transport.declare(queue("r"))
    publish_all(publisher, to("q"), *(b"q" for _ in range(5)))
    consumer = transport.consumer(["q", "r"], prefetch=4)
    first = only(consumer, 2)
    publish_all(publisher, to("r"), *(b"r" for _ in range(5)))
    assert bodies(only(consumer, 2)) == [b"r", b"r"]
    consumer.ack(first[0])
    assert bodies(only(consumer, 1)) == [b"q"]


def test_more_queues_than_prefetch_get_one_each_in_turn(
    transport: Transport, publisher: Publisher
) -> None:
    names = [f"many{number}" for number in range(5)]
    for name in names:
        transport.declare(queue(name))
        publish_all(publisher, to(name), b"1", b"2")
    consumer = transport.consumer(names, prefetch=2)
    taken = only(consumer, 2)
    for _ in range(8):
        consumer.ack(taken.pop(0))
        taken += only(consumer, 1)
    assert len(taken) == 2
    for delivery in taken:
        consumer.ack(delivery)
    only(consumer, 0)


def test_behind_an_unacked_message_of_each_of_many_queues_the_next_ones_are_seen(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    """Whatever is left of the prefetch by then: a client's notes lie behind its task.

    2,000 over RabbitMQ are in ``tests/end_to_end/test_many_clients.py``: it takes long to delete
    them.
    """
    names = [f"many{number}" for number in range(2000 if isinstance(rig, MemoryRig) else 200)]
    transport.declare(
        Topology(queues=tuple(Queue(name, durable=False, exclusive=True) for name in names))
    )
    consumer = transport.consumer(names, prefetch=10, each=3)
    for body in (b"1", b"2", b"3"):
        sent = [publisher.publish(to(name), Message(body, persistent=False)) for name in names]
        assert {each.result(PATIENCE) for each in sent} == {PublishOutcome.CONFIRMED}
        taken = take(consumer, len(names))
        assert {delivery.queue for delivery in taken} == set(names)
        assert set(bodies(taken)) == {body}
    publish_all(publisher, to("many7"), b"4")
    assert bodies(only(consumer, 0)) == []
    seventh = next(delivery for delivery in taken if delivery.queue == "many7")
    consumer.ack(seventh)
    assert bodies(only(consumer, 1)) == [b"4"]


@pytest.mark.parametrize("prefetch", [0, -1, 65536])
def test_a_prefetch_that_does_not_fit_is_refused(transport: Transport, prefetch: int) -> None:
    with pytest.raises(BrokerRefusal, match="1 to 65535"):
        transport.consumer(["q"], prefetch=prefetch)
    with pytest.raises(BrokerRefusal, match="0 to 65535"):
        transport.consumer(["q"], prefetch=1, each=65536)


def test_there_must_be_something_to_consume(transport: Transport) -> None:
    with pytest.raises(BrokerRefusal, match="no queue to consume"):
        transport.consumer([], prefetch=1)


def test_a_queue_named_twice_is_consumed_once(transport: Transport, publisher: Publisher) -> None:
    publish_all(publisher, to("q"), b"1", b"2", b"3")
    only(transport.consumer(["q", "q"], prefetch=2), 2)


def test_many_queues_in_one_consumer(transport: Transport, publisher: Publisher) -> None:
    names = [f"many.{number}" for number in range(50)]
    for name in names:
        transport.declare(queue(name))
    futures = [publisher.publish(to(name), Message(name.encode())) for name in names]
    assert {future.result(PATIENCE) for future in futures} == {PublishOutcome.CONFIRMED}
    taken = only(transport.consumer(names, prefetch=100), 50)
    assert {(delivery.queue, delivery.message.body) for delivery in taken} == {
        (name, name.encode()) for name in names
    }


def test_consumers_share_a_queue(transport: Transport, publisher: Publisher) -> None:
    one, two = (transport.consumer(["q"], prefetch=5) for _ in range(2))
    sent = [b"%d" % number for number in range(10)]
    publish_all(publisher, to("q"), *sent)
    shares = [only(one, 5), only(two, 5)]
    assert sorted(bodies(shares[0] + shares[1])) == sent


def test_threads_may_share_a_publisher_and_ack(transport: Transport, publisher: Publisher) -> None:
    def send(thread: int) -> list[PublishOutcome]:
        sent = [publisher.publish(to("q"), Message(b"%d %d" % (thread, n))) for n in range(100)]
        return [future.result(PATIENCE) for future in sent]

    with ThreadPoolExecutor(4) as pool:
        outcomes = list(pool.map(send, range(4)))
        assert outcomes == [[PublishOutcome.CONFIRMED] * 100] * 4
        consumer = transport.consumer(["q"], prefetch=7)
        taken = []
        for _ in range(400):
            taken += take(consumer, 1)
            pool.submit(consumer.ack, taken[-1])
    for thread in range(4):
        own = [body for body in bodies(taken) if body.startswith(b"%d " % thread)]
        assert own == [b"%d %d" % (thread, number) for number in range(100)]
    assert consumer.receive(QUIET) is None


def test_a_future_callback_may_publish(transport: Transport, publisher: Publisher) -> None:
    """Also more than the window holds: it runs where confirms arrive, and must not wait there."""
    done = threading.Event()

    def publish_more(_: object) -> None:
        futures = [publisher.publish(to("q"), Message(b"")) for _ in range(600)]
        futures[-1].add_done_callback(lambda _: done.set())

    publisher.publish(to("q"), Message(b"")).add_done_callback(publish_more)
    assert done.wait(PATIENCE)


def test_receive_gives_up_after_its_timeout(transport: Transport) -> None:
    assert transport.consumer(["q"], prefetch=1).receive(0.01) is None


def test_an_ack_for_somebody_elses_delivery_is_a_mistake(
    transport: Transport, publisher: Publisher
) -> None:
    publish_all(publisher, to("q"), b"")
    one, two = (transport.consumer(["q"], prefetch=1) for _ in range(2))
    [delivery] = take(one, 1)
    with pytest.raises(ValueError, match="the consumer that received it"):
        two.ack(delivery)


def test_a_second_ack_does_no_harm(transport: Transport, publisher: Publisher) -> None:
    publish_all(publisher, to("q"), b"1", b"2")
    consumer = transport.consumer(["q"], prefetch=1)
    [delivery] = take(consumer, 1)
    consumer.ack(delivery)
    consumer.ack(delivery)
    consumer.reject(delivery, requeue=True)
    assert bodies(only(consumer, 1)) == [b"2"]


@pytest.mark.parametrize("what", ["consumer", "transport"])
def test_close_wakes_who_waits_in_receive(transport: Transport, what: str) -> None:
    consumer = transport.consumer(["q"], prefetch=1)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(consumer.receive)
        (consumer if what == "consumer" else transport).close()
        with pytest.raises(TransportClosed):
            waiting.result(PATIENCE)


def test_after_close_everything_says_so(transport: Transport, publisher: Publisher) -> None:
    consumer = transport.consumer(["q"], prefetch=1)
    for _ in range(2):  # closing twice is fine
        publisher.close()
        consumer.close()
        transport.close()
    with pytest.raises(TransportClosed):
        publisher.publish(to("q"), Message(b"")).result(PATIENCE)
    with pytest.raises(TransportClosed):
        consumer.receive(0)
    for use in (
        lambda: transport.declare(queue("q")),
        lambda: transport.inspect_queue("q"),
        lambda: transport.delete_queue("q"),
        lambda: transport.publisher(),
        lambda: transport.consumer(["q"], prefetch=1),
    ):
        with pytest.raises(TransportClosed):
            use()


def test_closing_a_publisher_waits_for_its_confirms(
    transport: Transport, publisher: Publisher
) -> None:
    futures = [publisher.publish(to("q"), Message(b"x" * 10_000)) for _ in range(300)]
    publisher.close()
    assert {future.result(0) for future in futures} == {PublishOutcome.CONFIRMED}
