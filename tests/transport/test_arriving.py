"""Conformance: whatever a peer put into a message, it arrives, and the next one after it."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import pika
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pika import frame, spec

from flmq.transport import (
    Address,
    Binding,
    Exchange,
    ExchangeType,
    Message,
    Publisher,
    QueueType,
    Topology,
    Transport,
)
from flmq.transport.arriving import message_of
from flmq.transport.checks import check_outgoing
from flmq.transport.rabbitmq.properties import from_amqp
from flmq.transport.rabbitmq.reading import BoundedAssembler, bound
from tests.rawamqp import RawPublisher, properties
from tests.transport.oddities import ODD
from tests.transport.rigs import Events, RabbitMQRig, Rig, only, publish_all, queue, take, to


def test_odd_messages_arrive_like_any_other(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    """None costs the connection, and each is of the types that the interface promises."""
    events = Events()
    transport.declare(queue("q"))
    for name, odd in ODD.items():
        rig.inject(to("q"), name.encode(), odd)
    publish_all(publisher, to("q"), b"the next")
    consumer = rig.transport(events).consumer(["q"], prefetch=100)
    taken = only(consumer, len(ODD) + 1, ack=True)
    messages = {bytes(each.message.body).decode(): each.message for each in taken}
    assert list(messages) == [*ODD, "the next"]
    assert {event.state.value for event in events.seen} == {"connected"}
    for name, message in messages.items():
        word = ODD[name].unreadable if name in ODD else ""
        assert (word in message.unreadable) if word else message.unreadable == ""
        assert all(isinstance(header, str) for header in message.headers)
        texts = (message.type, message.message_id, message.correlation_id)
        assert all(isinstance(text, str) for text in texts)
    assert messages["type"].type.startswith(r"\xff\xfe\x80")
    assert messages["header text"].headers["h"] == b"\xff\xfe\x80" * 60
    assert messages["array"].headers == messages["void"].headers == {}
    assert not messages["other properties"].persistent
    assert messages["the next"] == Message(b"the next")


def test_an_unreadable_message_of_a_stream_is_passed(
    rig: Rig, transport: Transport, publisher: Publisher
) -> None:
    transport.declare(queue("s", kind=QueueType.STREAM))
    publish_all(publisher, to("s"), b"before")
    rig.inject(to("s"), b"odd", ODD["nested tables"])
    publish_all(publisher, to("s"), b"after")
    events = Events()
    consumer = rig.transport(events).consumer(["s"], prefetch=1, offset="first")
    taken = only(consumer, 3, ack=True)
    assert [bytes(each.message.body) for each in taken] == [b"before", b"odd", b"after"]
    assert {event.state.value for event in events.seen} == {"connected"}


def test_a_routing_key_may_be_any_bytes(broker_url: str) -> None:
    """What is no UTF-8 is shown with escapes: the keys of replies are their senders' choice."""
    rig = RabbitMQRig(broker_url)
    transport = rig.transport()
    everything = Exchange("e", ExchangeType.TOPIC), Binding("e", "q", "#")
    transport.declare(queue("q") + Topology((everything[0],), (), (everything[1],)))
    with RawPublisher(rig.direct) as publisher:
        publisher.publish(Address("e", ""), b"", properties(), routing_key=b"main.\xff.job")
    [delivery] = take(transport.consumer(["q"], prefetch=1), 1)
    assert delivery.routing_key == r"main.\xff.job"
    rig.close()


def test_pika_still_reads_frames_where_flmq_looks() -> None:
    """With a pika that fails here, one unreadable header ends connections without end."""
    assert callable(pika.SelectConnection._read_frame)


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())
    | st.binary()
    | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
    max_leaves=4,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(
        st.sampled_from(
            [
                "type_",
                "message_id",
                "correlation_id",
                "user_id",
                "headers",
                "expiration",
                "delivery_mode",
            ]
        ),
        anything,
    )
)
def test_a_message_is_made_of_anything(given_properties: dict[str, object]) -> None:
    message = message_of(b"body", **given_properties)
    assert message.expiration is None or message.expiration >= 0
    for text in (message.type, message.message_id, *message.headers):
        text.encode()
    # What a header holds can be sent on, if it is not too much.
    for value in message.headers.values():
        check_outgoing(to("q"), Message(b"", headers={"h": value}))


def test_a_body_that_is_too_large_passes_by_and_the_next_arrives() -> None:
    """A broker may take 128 MiB (RabbitMQ's default to 3.x), and send as many as the prefetch."""
    assembler = BoundedAssembler()
    delivered = frame.Method(1, spec.Basic.Deliver("tag", 7, False, "", "q"))
    size, piece = 100 << 20, bytes(1 << 20)
    for body, fragments in ((size, [piece] * 100), (4, [b"next"])):
        tracemalloc.start()
        assert assembler.process(delivered) is None
        came = assembler.process(frame.Header(1, body, pika.BasicProperties()))
        for fragment in fragments:
            assert came is None
            came = assembler.process(frame.Body(1, fragment))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        method, header, data = came
        message = from_amqp(header.properties, data)
        assert method is delivered
        if body == size:
            assert message.unreadable == (
                "its body of 104857600 bytes is not received: 16777216 at most"
            )
        assert message.body == (b"" if body == size else b"next")


def test_pika_has_what_bounds_bodies() -> None:
    """One that has not would be received from as ever: this says when that is so."""
    channel = pika.channel.Channel(mock.Mock(), 1, mock.Mock())
    bound(channel)
    assert isinstance(channel._content_assembler, BoundedAssembler)
