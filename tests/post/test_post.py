"""Envelopes over a transport: whole or in chunks, un-acked until dealt with, or buried."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from flmq.common import FitIns, Parameters
from flmq.common.phase import Phase
from flmq.post import Inbox, Letter, Outbox
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
    Assembler,
    BlobChunk,
    Body,
    JobEnded,
    Task,
    blob_chunk_headers,
    chunk_headers,
    encode,
    split,
)
from tests.transport.rigs import PATIENCE, QUIET

QUEUE = client_queue("a")
ADDRESS = Address(TASKS, task_key("main", "a"))
SMALL = JobEnded("job", 1, "done")
LARGE = 3_500_000


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


class Post:
    """A way out and a way in over one memory broker."""

    def __init__(self, *, hold_chunks: bool) -> None:
        self.broker = MemoryBroker()
        self.transport = MemoryTransport(self.broker)
        self.transport.declare(federation_topology() + client_topology("a"))
        self.publisher = self.transport.publisher()
        self.outbox = Outbox(self.publisher)
        self.reasons: list[str] = []
        assembler = Assembler(max_bytes_per_message=8 << 20, max_total_bytes=16 << 20, max_open=2)
        self.inbox = Inbox(
            self.transport.consumer([QUEUE], prefetch=100),
            self.outbox,
            assembler,
            hold_chunks=hold_chunks,
            on_dead=self.reasons.append,
        )

    def next(self) -> Letter:
        while (letter := self.inbox.receive(PATIENCE)) is None:
            pass
        return letter

    def raw(self, content: bytes, headers: Any = None) -> None:
        message = Message(content, headers=headers or {})
        assert self.publisher.publish(ADDRESS, message).result(1) is PublishOutcome.CONFIRMED

    def dead(self) -> list[str]:
        """Reasons of the dead letters so far."""
        with MemoryTransport(self.broker) as other:
            consumer = other.consumer([DEAD], prefetch=100)
            letters = []
            while (letter := consumer.receive(0.05)) is not None:
                letters.append(letter)
                consumer.ack(letter)
            return [str(letter.message.headers["x-flmq-reason"]) for letter in letters]

    def come_again(self) -> int:
        """Messages that the broker delivers again when everybody has gone."""
        self.transport.close()
        with MemoryTransport(self.broker) as other:
            info = other.inspect_queue(QUEUE)
            return 0 if info is None else info.messages_ready


@pytest.fixture(params=[True, False], ids=["holding", "not holding"])
def post(request: pytest.FixtureRequest) -> Iterator[Post]:
    made = Post(hold_chunks=request.param)
    yield made
    made.transport.close()


@pytest.mark.parametrize("body", [SMALL, large()], ids=["small", "large"])
def test_what_is_sent_comes_as_it_was(post: Post, body: Body) -> None:
    sent = post.outbox.send(ADDRESS, body, message_id="id", correlation_id="answer")
    assert sent.outcome.result(PATIENCE) is PublishOutcome.CONFIRMED
    letter = post.next()
    assert letter.body == body
    assert letter.bytes == sent.bytes == len(encode(body))
    assert letter.delivery.message.type == type(body).__name__
    assert letter.delivery.message.correlation_id == "answer"
    post.inbox.ack(letter)
    assert post.come_again() == 0


def test_an_envelope_that_is_not_dealt_with_comes_again() -> None:
    post = Post(hold_chunks=True)
    post.outbox.send(ADDRESS, large())
    post.next()
    assert post.come_again() == 4  # all its chunks


def test_half_an_envelope_comes_again_with_the_rest_where_chunks_are_held() -> None:
    post = Post(hold_chunks=True)
    chunks = split(encode(large()))
    for chunk in chunks[:2]:
        post.raw(bytes(chunk.data), chunk_headers(chunk))
        assert post.inbox.receive(PATIENCE) is None
    post.broker.drop_connections()
    for chunk in chunks[2:]:
        post.raw(bytes(chunk.data), chunk_headers(chunk))
    letter = post.next()
    assert letter.body == large()
    assert len(letter.deliveries) == len(chunks)
    post.inbox.ack(letter)
    assert post.come_again() == 0


def test_a_chunk_that_comes_twice_changes_nothing(post: Post) -> None:
    chunks = split(encode(large()))
    for chunk in [chunks[0], chunks[1], chunks[1], chunks[0], *chunks[2:]]:
        post.raw(bytes(chunk.data), chunk_headers(chunk))
    letter = post.next()
    assert letter.body == large()
    post.inbox.ack(letter)
    assert post.come_again() == 0


def test_chunks_of_two_envelopes_may_come_interleaved(post: Post) -> None:
    bodies = [large(b"x"), large(b"y")]
    for pair in zip(*(split(encode(body)) for body in bodies), strict=True):
        for chunk in pair:
            post.raw(bytes(chunk.data), chunk_headers(chunk))
    letters = [post.next(), post.next()]
    assert [letter.body for letter in letters] == bodies
    for letter in letters:
        post.inbox.ack(letter)
    assert post.come_again() == 0


def test_an_envelope_of_which_a_chunk_is_damaged_is_given_up_with_a_reason(post: Post) -> None:
    chunks = split(encode(large()))
    for chunk in chunks[:-1]:
        post.raw(bytes(chunk.data), chunk_headers(chunk))
    post.raw(b"?" * len(chunks[-1].data), chunk_headers(chunks[-1]))
    post.outbox.send(ADDRESS, SMALL)
    letter = post.next()
    assert letter.body == SMALL  # what comes after is read
    post.inbox.ack(letter)
    (reason,) = post.dead()
    assert "damaged on the way" in reason
    assert post.reasons == [reason]
    assert post.come_again() == 0


def test_a_whole_envelope_that_cannot_be_read_is_given_up_whatever_its_number_of_chunks(
    post: Post,
) -> None:
    for chunk in split(b"\xff" * LARGE):
        post.raw(bytes(chunk.data), chunk_headers(chunk))
    while not post.reasons:
        assert post.inbox.receive(PATIENCE) is None
    (reason,) = post.dead()
    assert f"{LARGE} bytes that are no message of flmq" in reason
    assert post.come_again() == 0


def test_a_piece_of_a_blob_is_a_letter_of_its_own(post: Post) -> None:
    post.raw(b"piece", blob_chunk_headers("0123456789abcdef" * 2, 7))
    letter = post.next()
    assert isinstance(letter.body, BlobChunk)
    assert (letter.body.index, bytes(letter.body.data), letter.bytes) == (7, b"piece", 5)
    post.inbox.ack(letter)
    assert post.come_again() == 0


@pytest.mark.parametrize("body", [SMALL, large()], ids=["small", "large"])
def test_a_buried_letter_is_whole_among_the_dead_and_does_not_come_again(
    post: Post, body: Body
) -> None:
    post.outbox.send(ADDRESS, body)
    letter = post.next()
    post.inbox.bury(letter, "no use for it")
    assert set(post.dead()) == {"no use for it"}
    assert post.inbox.receive(QUIET) is None
    assert post.come_again() == 0


def test_a_dead_letter_tells_where_it_was(post: Post) -> None:
    post.raw(b"garbage", {"x-own": 3})
    assert post.inbox.receive(PATIENCE) is None
    consumer = post.transport.consumer([DEAD], prefetch=1)
    letter = consumer.receive(PATIENCE)
    assert letter is not None
    headers = letter.message.headers
    assert letter.message.body == b"garbage"
    assert headers["x-own"] == 3
    assert headers["x-flmq-queue"] == QUEUE
    assert headers["x-flmq-exchange"] == "flmq.tasks.local" or headers["x-flmq-exchange"] == TASKS
    assert headers["x-flmq-routing-key"] == ADDRESS.routing_key
    assert len(str(headers["x-flmq-reason"])) <= 1000


def test_unroutable_is_said_of_the_whole_if_it_is_of_a_part(post: Post) -> None:
    nowhere = Address(TASKS, task_key("main", "nobody"))
    for body in (SMALL, large()):
        sent = post.outbox.send(nowhere, body)
        assert sent.outcome.result(PATIENCE) is PublishOutcome.UNROUTABLE


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

    sent = Outbox(Half()).send(ADDRESS, large())  # type: ignore[arg-type]
    with pytest.raises(OSError, match="lost"):
        sent.outcome.result(PATIENCE)
