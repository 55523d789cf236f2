"""Envelopes over a transport: un-acked until dealt with, or dead-lettered."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from flmq.common import FitIns, Parameters
from flmq.common.phase import Phase
from flmq.messaging import Inbox, Incoming, Sender
from flmq.testing import MemoryBroker, MemoryTransport
from flmq.transport import (
    DEAD,
    TASKS,
    Address,
    Message,
    PublishOutcome,
    client_queue,
    client_topology,
    federation_topology,
    task_key,
)
from flmq.wire import (
    BlobChunk,
    Body,
    JobEnded,
    Task,
    blob_chunk_headers,
    encode,
    refer,
)
from tests.transport.rigs import PATIENCE, QUIET

QUEUE = client_queue("a")
ADDRESS = Address(TASKS, task_key("main", "a"))
SMALL = JobEnded("job", 1, "done")
LARGE = 500_000


def large(fill: bytes = b"x") -> Task:
    return Task(
        task_id="t",
        job="job",
        server_round=1,
        phase=Phase.FIT,
        client_id="a",
        epoch=1,
        nonce=b"n",
        ins=FitIns(Parameters([fill * LARGE], "bytes"), {}),
    )


class Messaging:
    """A way out and a way in over one memory broker."""

    def __init__(self) -> None:
        self.broker = MemoryBroker()
        self.transport = MemoryTransport(self.broker)
        self.transport.declare(federation_topology() + client_topology("a"))
        self.publisher = self.transport.publisher()
        self.sender = Sender(self.publisher)
        self.reasons: list[str] = []
        self.inbox = Inbox(
            self.transport.consumer([QUEUE], prefetch=100),
            self.sender,
            on_dead=self.reasons.append,
        )

    def next(self) -> Incoming:
        while (incoming := self.inbox.receive(PATIENCE)) is None:
            pass
        return incoming

    def raw(self, content: bytes, headers: Any = None) -> None:
        message = Message(content, headers=headers or {})
        assert self.publisher.publish(ADDRESS, message).result(1) is PublishOutcome.CONFIRMED

    def dead(self) -> list[str]:
        """Reasons of the dead letters so far."""
        with MemoryTransport(self.broker) as other:
            consumer = other.consumer([DEAD], prefetch=100)
            incomings = []
            while (incoming := consumer.receive(0.05)) is not None:
                incomings.append(incoming)
                consumer.ack(incoming)
            return [str(incoming.message.headers["x-flmq-reason"]) for incoming in incomings]

    def come_again(self) -> int:
        """Messages that the broker delivers again when everybody has gone."""
        self.transport.close()
        with MemoryTransport(self.broker) as other:
            info = other.inspect_queue(QUEUE)
            return 0 if info is None else info.messages_ready


@pytest.fixture
def messaging() -> Iterator[Messaging]:
    made = Messaging()
    yield made
    made.transport.close()


@pytest.mark.parametrize("body", [SMALL, large()], ids=["small", "large"])
def test_what_is_sent_comes_as_it_was(messaging: Messaging, body: Body) -> None:
    sent = messaging.sender.send(ADDRESS, body, message_id="id", correlation_id="answer")
    assert sent.outcome.result(PATIENCE) is PublishOutcome.CONFIRMED
    incoming = messaging.next()
    assert incoming.body == body
    assert incoming.bytes == sent.bytes == len(encode(body))
    assert incoming.delivery.message.type == type(body).__name__
    assert incoming.delivery.message.correlation_id == "answer"
    messaging.inbox.ack(incoming)
    assert messaging.come_again() == 0


def test_an_envelope_that_is_not_dealt_with_comes_again(messaging: Messaging) -> None:
    messaging.sender.send(ADDRESS, large())
    messaging.next()
    assert messaging.come_again() == 1


def test_what_was_a_piece_of_an_envelope_is_none_any_more(messaging: Messaging) -> None:
    """Nothing waits for others of its kind: not one of thousands stays un-acked."""
    for index in range(2100):
        messaging.raw(b"x", {"x-flmq-chunk-digest": "a" * 32, "x-flmq-chunk-index": index})
    messaging.sender.send(ADDRESS, SMALL)
    incoming = messaging.next()
    assert incoming.body == SMALL
    messaging.inbox.ack(incoming)
    assert len(messaging.reasons) == 2100
    assert messaging.come_again() == 0


def test_a_piece_of_a_blob_is_a_message_of_its_own(messaging: Messaging) -> None:
    messaging.raw(b"piece", blob_chunk_headers("0123456789abcdef" * 2, 7))
    incoming = messaging.next()
    assert isinstance(incoming.body, BlobChunk)
    assert (incoming.body.index, bytes(incoming.body.data), incoming.bytes) == (7, b"piece", 5)
    messaging.inbox.ack(incoming)
    assert messaging.come_again() == 0


@pytest.mark.parametrize("body", [SMALL, large()], ids=["small", "large"])
def test_a_dead_letter_is_whole_and_does_not_come_again(messaging: Messaging, body: Body) -> None:
    messaging.sender.send(ADDRESS, body)
    incoming = messaging.next()
    messaging.inbox.dead_letter(incoming, "no use for it")
    assert set(messaging.dead()) == {"no use for it"}
    assert messaging.inbox.receive(QUIET) is None
    assert messaging.come_again() == 0


def test_a_dead_letter_tells_where_it_was(messaging: Messaging) -> None:
    messaging.raw(b"garbage", {"x-own": 3})
    assert messaging.inbox.receive(PATIENCE) is None
    consumer = messaging.transport.consumer([DEAD], prefetch=1)
    incoming = consumer.receive(PATIENCE)
    assert incoming is not None
    headers = incoming.message.headers
    assert incoming.message.body == b"garbage"
    assert headers["x-own"] == 3
    assert headers["x-flmq-queue"] == QUEUE
    assert headers["x-flmq-exchange"] == "flmq.tasks.local" or headers["x-flmq-exchange"] == TASKS
    assert headers["x-flmq-routing-key"] == ADDRESS.routing_key
    assert len(str(headers["x-flmq-reason"])) <= 1000


def send_model(sender: Sender, address: Address) -> Future[PublishOutcome]:
    parameters = Parameters([b"x" * 3_500_000], "bytes")
    ref = refer(parameters)
    return sender.send_blob(address, ref, ref.digest, parameters.tensors).outcome


def test_unroutable_is_said_of_the_whole_if_it_is_of_a_part(messaging: Messaging) -> None:
    nowhere = Address(TASKS, task_key("main", "nobody"))
    sent = messaging.sender.send(nowhere, SMALL)
    assert sent.outcome.result(PATIENCE) is PublishOutcome.UNROUTABLE
    assert send_model(messaging.sender, nowhere).result(PATIENCE) is PublishOutcome.UNROUTABLE


def test_a_failure_of_a_part_is_that_of_the_whole() -> None:
    class Half:
        """A publisher that takes every second message."""

        def __init__(self) -> None:
            self.count = 0

        def publish(self, *args: object, **kwargs: object) -> Future[PublishOutcome]:
            self.count += 1
            future: Future[PublishOutcome] = Future()
            if self.count % 2:
                future.set_result(PublishOutcome.CONFIRMED)
            else:
                future.set_exception(OSError("lost"))
            return future

    sent = send_model(Sender(Half()), ADDRESS)  # type: ignore[arg-type]
    with pytest.raises(OSError, match="lost"):
        sent.result(PATIENCE)
