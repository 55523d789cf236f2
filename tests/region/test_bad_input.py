"""What nobody should send an aggregator is never counted, and named; it goes on as before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flmq.common.phase import Phase
from flmq.transport import DEAD, REGIONAL, REGIONAL_UPLOADS, TASKS, Address, Message, aggregator_key
from flmq.wire import (
    Body,
    EntryOutcome,
    JobEnded,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    SendPartial,
    encode,
)
from flmq.wire.blobs import blob_chunk_headers
from tests.region.stage import JOB, RUN, Stage, fit_res, flat
from tests.transport.rigs import PATIENCE

CLIENTS = ["ann", "bob"]


def dead_reason(stage: Stage) -> str:
    """Wait for a dead letter, and return why it is one."""
    consumer = stage.transport.consumer([DEAD], prefetch=10)
    try:
        delivery = consumer.receive(PATIENCE)
        assert delivery is not None
        consumer.ack(delivery)
        return str(delivery.message.headers["x-flmq-reason"])
    finally:
        consumer.close()


def goes_on(stage: Stage) -> None:
    """See that an order is answered as ever, with the honest replies."""
    order = stage.send_order(stage.order(CLIENTS))
    for client in CLIENTS:
        stage.send_reply(stage.reply(client))
    assert stage.summed(order)[0] == flat(CLIENTS)
    stage.stop()


@pytest.mark.parametrize(
    ("but", "word"),
    [
        ({"nonce": b"guessed"}, "nonce"),
        ({"job": "other"}, "another job or phase"),
        ({"client_id": "bob"}, "answers the task of ann"),
    ],
)
def test_a_reply_of_somebody_else_is_dead_lettered(
    memory_stage: Stage, but: dict[str, Any], word: str
) -> None:
    stage = memory_stage
    stage.aggregate()
    stage.send_order(stage.order(CLIENTS))
    stage.send_reply(stage.reply("ann", **but))
    assert word in dead_reason(stage)
    goes_on(stage)


@pytest.mark.parametrize(
    ("but", "word"),
    [
        ({"site": "other"}, "an order for the aggregator of site other"),
        ({"phase": Phase.EVALUATE}, "to add up evaluate"),
    ],
)
def test_an_order_for_somebody_else_is_dead_lettered(
    memory_stage: Stage, but: dict[str, Any], word: str
) -> None:
    stage = memory_stage
    stage.aggregate()
    stage.tell(replace(stage.order(CLIENTS), **but))
    assert word in dead_reason(stage)
    goes_on(stage)


def test_what_an_aggregator_does_not_take_is_dead_lettered(memory_stage: Stage) -> None:
    stage = memory_stage
    stage.aggregate()
    stage.tell(Presence(PresenceKind.HELLO, "c", "main", "i"))
    assert "takes no Presence" in dead_reason(stage)
    goes_on(stage)


def test_words_on_orders_that_are_not_known_change_nothing(memory_stage: Stage) -> None:
    stage = memory_stage
    stage.aggregate()
    order = stage.order(CLIENTS, round_=9)
    stage.tell(SendPartial(order.task_id, JOB, 7, RUN))
    stage.receipt(order, ReceiptOutcome.ACCEPTED)
    stage.tell(JobEnded("another", 7, "", RUN))
    stage.tell(JobEnded(JOB, 7, "", "another-run"))
    goes_on(stage)


def test_a_word_of_an_earlier_server_changes_nothing(memory_stage: Stage) -> None:
    stage = memory_stage
    stage.aggregate()
    order = stage.send_order(stage.order(CLIENTS))
    stage.send_reply(stage.reply("ann"))
    stage.tell(SendPartial(order.task_id, JOB, 6, RUN))
    stage.tell(JobEnded(JOB, 6, "", RUN))
    goes_on(stage)


def test_a_reply_too_large_or_not_as_announced_is_rejected_by_name(memory_stage: Stage) -> None:
    stage = memory_stage
    stage.aggregate()
    order = stage.send_order(stage.order([*CLIENTS, "cy"], max_reply_bytes=1000))
    stage.send_reply(stage.reply("ann", res=fit_res("ann", 1000)), chunk_bytes=500)
    stage.send_reply(stage.reply("bob", res=fit_res("bob", 20)))
    stage.send_reply(stage.reply("cy"))
    mean, entries = stage.summed(order)
    assert mean == flat(["cy"])
    assert "the server takes 1000" in entries["ann"].reason
    assert "shape" in entries["bob"].reason
    assert entries["ann"].outcome is EntryOutcome.REJECTED
    stage.stop()


def test_garbage_of_all_sorts_in_every_queue_is_survived(stage: Stage) -> None:
    stage.aggregate()
    publisher = stage.transport.publisher()
    addresses = [
        Address(TASKS, aggregator_key("main")),
        Address(REGIONAL, "main.ann.job"),
        Address(REGIONAL_UPLOADS, "main.ann.job"),
    ]
    chunk = blob_chunk_headers(stage.asked("ann").task_id + ".0123456789abcdef", 3)
    for address in addresses:
        odd: list[tuple[bytes, dict[str, str | int]]] = [
            (b"", {}),
            (b"garbage", {}),
            (b"x" * 100, chunk),
            (b"x", {"x-flmq-blob": "no name", "x-flmq-blob-index": -1}),
        ]
        for body, headers in odd:
            publisher.publish(address, Message(body, headers=headers)).result(PATIENCE)
    goes_on(stage)


class TestAnyMessage:
    """One byte or field of an order or a reply is changed: nothing but what was sent is counted."""

    @given(data=st.data())
    @settings(
        max_examples=60,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    def test_damaged_leaves_the_aggregator_as_it_is(
        self, memory_stage: Stage, data: st.DataObject
    ) -> None:
        stage = memory_stage
        if not stage.running:
            stage.aggregate()
        order = stage.order(CLIENTS)
        receipt = Receipt(
            order.task_id, JOB, 1, Phase.FIT, order.client_id, ReceiptOutcome.REJECTED, "?"
        )
        kinds: list[Body] = [
            order,
            stage.reply("ann"),
            SendPartial(order.task_id, JOB, 7, RUN),
            receipt,
        ]
        chosen = data.draw(st.sampled_from(kinds))
        body = bytearray(encode(chosen))
        at = data.draw(st.integers(0, len(body) - 1))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
        address = Address(TASKS, aggregator_key("main"))
        if isinstance(chosen, Reply):
            address = Address(REGIONAL, "main.ann.job")
        publisher = stage.transport.publisher()
        publisher.publish(address, Message(bytes(body))).result(PATIENCE)
        publisher.close()
        _, _, done = stage.running[0]
        assert not done.done()
