"""How large a broker's messages may be is found out once, and only where it matters."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import Future

import pytest

from flmq.broker.node import PrivateNode
from flmq.common.errors import BrokerRefusal, MessageTooLarge, TransportClosed
from flmq.messaging import Sender
from flmq.messaging.sizes import ChunkSize
from flmq.testing import MemoryBroker, MemoryTransport
from flmq.transport import (
    TASKS,
    UPLOADS,
    Address,
    PublishOutcome,
    federation_topology,
    job_topology,
    size_key,
)
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


# -- a broker that does not answer, or not truly --------------------------------------------------

MIB, MEANWHILE = 1 << 20, 64 * 1024


class Line:
    """A publisher whose broker says what the test says, when it says it."""

    def __init__(self) -> None:
        self.asked: list[Future[PublishOutcome]] = []

    def publish(self, *_: object, **__: object) -> Future[PublishOutcome]:
        self.asked.append(Future())
        return self.asked[-1]


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def size(line: Line, monkeypatch: pytest.MonkeyPatch) -> ChunkSize:
    monkeypatch.setattr("flmq.messaging.sizes._PATIENCE", 0.1)
    return ChunkSize(line, None, 16)  # type: ignore[arg-type]


def test_a_question_that_is_never_answered_is_waited_for_once_and_said_once(
    line: Line, size: ChunkSize, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "flmq"):
        assert [size.get(NOBODY) for _ in range(3)] == [MEANWHILE] * 3
    assert len(line.asked) == 1
    (said,) = caplog.records
    assert "large bodies go in chunks of 65536 bytes until it does" in said.getMessage()
    line.asked[0].set_result(PublishOutcome.UNROUTABLE)  # it comes after all
    assert size.get(NOBODY) == MIB


def test_a_question_that_fails_is_asked_again_and_one_that_is_closed_raises(
    line: Line, size: ChunkSize
) -> None:
    for error, expected in ((BrokerRefusal("no such exchange"), MEANWHILE), (None, MIB)):
        answering = threading.Thread(target=_answer, args=(line, error))
        answering.start()
        assert size.get(NOBODY) == expected
        answering.join()
    closed = ChunkSize(line, None, 16)  # type: ignore[arg-type]
    answering = threading.Thread(target=_answer, args=(line, TransportClosed("closed")))
    answering.start()
    with pytest.raises(TransportClosed):
        closed.get(NOBODY)
    answering.join()


def _answer(line: Line, error: Exception | None) -> None:
    while not line.asked or line.asked[-1].done():
        pass
    if error is None:
        line.asked[-1].set_result(PublishOutcome.CONFIRMED)
    else:
        line.asked[-1].set_exception(error)


@pytest.mark.parametrize(
    ("limit", "expected"), [(100_016, 100_000), (0, 1024), (-5, 1024), (1 << 40, MIB // 2)]
)
def test_a_chunk_that_is_refused_is_cut_smaller(size: ChunkSize, limit: int, expected: int) -> None:
    """Whatever the broker says: a limit, none, or one under which the chunk would have been."""
    refused = MessageTooLarge(MIB + 16, limit)
    assert size.learn(refused)
    assert size.get(NOBODY) == expected
    assert size.learn(refused), "another thread sent it, too"
    assert size.get(NOBODY) == expected


def test_a_broker_that_refuses_everything_is_asked_a_few_times_only(size: ChunkSize) -> None:
    tries, chunk = 0, MIB
    while size.learn(MessageTooLarge(chunk + 16, chunk + 15)):
        tries, chunk = tries + 1, size.get(NOBODY)
    assert chunk == 1024
    assert tries <= 12
