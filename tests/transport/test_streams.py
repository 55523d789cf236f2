"""Conformance: streams are read by many, from any point, and go on where they were."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest

from flmq.common.errors import BrokerRefusal, TransportClosed
from flmq.transport import (
    ConnectionState,
    Consumer,
    Delivery,
    Message,
    Publisher,
    QueueType,
    StreamOffset,
    Transport,
)
from flmq.transport.base import offset_of as offset_if_any
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

SENT = [b"%d" % number for number in range(10)]


@pytest.fixture
def stream(transport: Transport, publisher: Publisher) -> Transport:
    """A stream of ten messages."""
    transport.declare(queue("s", kind=QueueType.STREAM))
    publish_all(publisher, to("s"), *SENT)
    return transport


def offset_of(delivery: Delivery) -> int:
    offset = offset_if_any(delivery)
    assert offset is not None
    return offset


def reader(transport: Transport, offset: StreamOffset, prefetch: int = 100) -> Consumer:
    return transport.consumer(["s"], prefetch=prefetch, offset=offset)


def test_everybody_reads_everything(stream: Transport) -> None:
    for _ in range(2):
        taken = only(reader(stream, "first"), 10, ack=True)
        assert bodies(taken) == SENT
        assert not any(delivery.redelivered for delivery in taken)
        offsets = [offset_of(delivery) for delivery in taken]
        assert offsets == sorted(set(offsets))


def test_a_reader_begins_at_an_offset(stream: Transport) -> None:
    seventh = offset_of(take(reader(stream, "first"), 7)[-1])
    assert bodies(only(reader(stream, seventh), 4)) == SENT[6:]


def test_a_reader_begins_with_what_comes_next(stream: Transport, publisher: Publisher) -> None:
    consumer = reader(stream, "next")
    only(consumer, 0)
    publish_all(publisher, to("s"), b"new")
    assert bodies(only(consumer, 1)) == [b"new"]


def test_a_reader_begins_near_the_end(stream: Transport) -> None:
    """RabbitMQ means the last chunk by "last", which may hold more than one message."""
    assert bodies(take(reader(stream, "last"), 1))[0] in SENT
    consumer = reader(stream, "last")
    while (delivery := consumer.receive(5)) and delivery.message.body != SENT[-1]:
        pass
    assert delivery is not None
    only(consumer, 0)


def test_a_reader_begins_at_a_time(stream: Transport) -> None:
    earlier = datetime.now(UTC) - timedelta(minutes=1)
    assert bodies(only(reader(stream, earlier), 10)) == SENT
    only(reader(stream, datetime.now(UTC) + timedelta(minutes=1)), 0)


def test_an_offset_that_is_gone_or_to_come(stream: Transport, publisher: Publisher) -> None:
    last = offset_of(take(reader(stream, "first"), 10)[-1])
    consumer = reader(stream, last + 3)
    only(consumer, 0)
    publish_all(publisher, to("s"), b"11", b"12", b"13")
    assert bodies(only(consumer, 1)) == [b"13"]
    assert bodies(take(reader(stream, 0), 10)) == SENT


def test_acks_make_room(stream: Transport) -> None:
    consumer = reader(stream, "first", prefetch=3)
    first = only(consumer, 3)
    for delivery in first:
        consumer.ack(delivery)
    assert bodies(only(consumer, 3)) == SENT[3:6]


def test_a_slow_reader_does_not_hold_up_a_fast_one(stream: Transport) -> None:
    slow, fast = reader(stream, "first", prefetch=1), reader(stream, "first", prefetch=2)
    [first] = only(slow, 1)
    assert bodies(only(fast, 10, ack=True)) == SENT
    slow.ack(first)
    assert bodies(only(slow, 1)) == SENT[1:2]


def test_a_stream_that_was_deleted_is_made_anew_and_read_on(
    rig: Rig, stream: Transport, publisher: Publisher
) -> None:
    """Who declared it declares it again; its offsets begin anew, and the reader goes on at its."""
    consumer = reader(stream, "first")
    assert bodies(only(consumer, 10, ack=True)) == SENT
    rig.witness().delete_queue("s")
    for attempt in range(50):  # until the reader has found its way back
        publisher.publish(to("s"), Message(b"new %d" % attempt), mandatory=False)
        delivery = consumer.receive(0.3)
        if delivery is not None:
            break
    assert delivery is not None
    assert bytes(delivery.message.body).startswith(b"new")
    assert offset_of(delivery) == 10


def test_reading_goes_on_where_it_was_after_a_loss(rig: Rig, stream: Transport) -> None:
    events = Events()
    consumer = reader(rig.transport(events), "first")
    assert bodies(take(consumer, 4, ack=True)) == SENT[:4]  # the others are in its buffer
    rig.cut()
    events.wait_for("control", ConnectionState.LOST)
    assert bodies(only(consumer, 6)) == SENT[4:]


def test_nothing_is_missed_between_a_loss_and_the_first_message(
    rig: Rig, stream: Transport, publisher: Publisher
) -> None:
    events = Events()
    consumer = reader(rig.transport(events), "next")
    witness = reader(rig.witness(), "next")
    publish_all(publisher, to("s"), b"new")
    take(witness, 1)
    consumer_has_it = threading.Event()
    assert not consumer_has_it.wait(QUIET)  # delivered to its buffer by now, received by nobody
    rig.cut()
    events.wait_for("control", ConnectionState.LOST)
    assert bodies(only(consumer, 1)) == [b"new"]


def test_what_is_handed_out_is_not_handed_out_again(rig: Rig, stream: Transport) -> None:
    consumer = reader(stream, "first", prefetch=5)
    taken = take(consumer, 5)
    rig.cut()
    again = only(consumer, 5)
    consumer.ack(taken[0])
    assert bodies(again) == SENT[5:]


def test_a_stream_keeps_what_it_may(transport: Transport, publisher: Publisher) -> None:
    transport.declare(
        queue(
            "s",
            kind=QueueType.STREAM,
            x_max_length_bytes=400_000,
            x_stream_max_segment_size_bytes=100_000,
        )
    )
    for number in range(40):
        publish_all(publisher, to("s"), b"%02d" % number + b"x" * 50_000)

    def oldest() -> bytes:
        consumer = reader(transport, "first")
        [delivery] = take(consumer, 1)
        consumer.close()
        return bytes(delivery.message.body)[:2]

    eventually(lambda: oldest() > b"20")


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("s", {}, "offset"),
        ("q", {"offset": "first"}, "no stream"),
        ("s", {"offset": "first", "exclusive": True}, "read by everybody"),
    ],
    ids=["none", "queue", "exclusive"],
)
def test_offsets_and_streams_go_together(
    stream: Transport, name: str, options: dict[str, object], words: str
) -> None:
    stream.declare(queue("q"))
    with pytest.raises(BrokerRefusal, match=words):
        stream.consumer([name], prefetch=1, **options)  # type: ignore[arg-type]


def test_no_reader_is_opened_over_a_closed_transport(rig: Rig, stream: Transport) -> None:
    """It works over a connection that is gone, and would wait for it for ever."""
    transport = rig.transport()
    transport.declare(queue("s", kind=QueueType.STREAM))
    transport.close()
    with pytest.raises(TransportClosed):
        reader(transport, "first")


@pytest.mark.parametrize("offset", ["first", None])
def test_who_waits_for_a_consumer_is_told_that_the_transport_closes(
    rig: Rig, stream: Transport, offset: StreamOffset | None
) -> None:
    events = Events()
    transport = rig.transport(events)
    name = "s" if offset else "q"
    transport.declare(queue(name, kind=QueueType.STREAM if offset else QueueType.CLASSIC))
    rig.down()
    events.wait_for("control", ConnectionState.LOST)
    with ThreadPoolExecutor(1) as pool:
        opened = pool.submit(transport.consumer, [name], prefetch=1, offset=offset)
        with pytest.raises(TimeoutError):
            opened.result(QUIET)
        transport.close()
        with pytest.raises(TransportClosed):
            opened.result(PATIENCE)
    rig.up()


def test_readers_that_are_opened_while_a_transport_closes_are_told(
    rig: Rig, stream: Transport
) -> None:
    transport = rig.transport()

    def open_many() -> None:
        while True:
            reader(transport, "first").close()

    with ThreadPoolExecutor(3) as pool:
        opened = [pool.submit(open_many) for _ in range(3)]
        assert reader(transport, "first").receive(PATIENCE) is not None
        transport.close()
        for each in opened:
            with pytest.raises(TransportClosed):
                each.result(PATIENCE)
