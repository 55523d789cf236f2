"""Reading models from the stream: found wherever they are, never believed, asked for when gone."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from flmq.client.models.cache import MemoryCache
from flmq.client.models.reader import ModelNotFound, ModelReader
from flmq.common import Parameters
from flmq.common.errors import (
    BrokerAccessRefused,
    BrokerRefusal,
    MalformedMessage,
    ModelTooLarge,
    TransportClosed,
)
from flmq.common.machine import available_memory
from flmq.transport import (
    MODELS,
    TASKS,
    Address,
    Consumer,
    Message,
    Topology,
    Transport,
    federation_topology,
    models_topology,
    own_model_key,
    own_models_topology,
)
from flmq.wire import BlobRef, blob_chunk_headers, iter_chunks, refer
from tests.transport.rigs import PATIENCE, RabbitMQRig, Rig, eventually

CHUNK, SLOW_CHUNK = 10_000, 800_000
HOUR = 3600_000


def model(number: int, size: int = 5 * CHUNK + 1) -> Parameters:
    values = np.random.default_rng(number).bytes(size)
    return Parameters([values[:17], b"", values[17:]], "numpy.ndarray")


@dataclass
class Desk:
    """Publishes models as a server does, and readers of them."""

    transport: Transport
    asked: list[float] = field(default_factory=list)
    stopping: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.transport.declare(federation_topology() + models_topology())
        self.publisher = self.transport.publisher()

    def refer(
        self, parameters: Parameters, published_in: int = 0, chunk_bytes: int = CHUNK
    ) -> BlobRef:
        now = time.time_ns() // 1_000_000
        return refer(parameters, chunk_bytes=chunk_bytes, published_unix_ms=now + published_in)

    def chunk(self, name: str, index: int, data: bytes | memoryview) -> None:
        message = Message(data, headers=blob_chunk_headers(name, index))
        self.publisher.publish(Address(MODELS, "job"), message).result(PATIENCE)

    def publish(
        self, parameters: Parameters, published_in: int = 0, chunk_bytes: int = CHUNK
    ) -> BlobRef:
        ref = self.refer(parameters, published_in, chunk_bytes)
        for index, data in iter_chunks(ref, parameters.tensors):
            self.chunk(ref.digest, index, data)
        return ref

    def reader(
        self,
        max_model_bytes: int | None = None,
        cache_bytes: int = 10**9,
        patience: float = 600.0,
    ) -> ModelReader:
        return ModelReader(
            self.transport,
            MemoryCache(cache_bytes),
            max_model_bytes=max_model_bytes,
            patience=patience,
            stopping=self.stopping,
        )

    def ask(self) -> None:
        self.asked.append(time.monotonic())

    def asking(self, then: Callable[[], object]) -> Callable[[], None]:
        def ask() -> None:
            self.ask()
            then()

        return ask

    def get(self, reader: ModelReader, ref: BlobRef) -> Parameters:
        return reader.get(ref, time.time() + PATIENCE, self.ask)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader of a stream here begins within 0.2 s."""
    monkeypatch.setattr("flmq.client.models.reader._QUIET", 0.6)


@pytest.fixture
def desk(rig: Rig) -> Desk:
    return Desk(rig.transport())


def same(got: Parameters, sent: Parameters) -> bool:
    return [bytes(tensor) for tensor in got.tensors] == sent.tensors


def test_a_model_is_read_once(desk: Desk) -> None:
    sent, reader = model(1), desk.reader()
    ref = desk.publish(sent)
    got = desk.get(reader, ref)
    assert same(got, sent)
    assert got.tensor_type == "numpy.ndarray"
    desk.transport.delete_queue(MODELS)
    assert same(desk.get(reader, ref), sent)
    assert desk.asked == []


def test_nobody_can_change_the_model_that_others_get(desk: Desk) -> None:
    got = desk.get(desk.reader(), desk.publish(model(1)))
    with pytest.raises(ValueError, match="read-only"):
        np.frombuffer(got.tensors[2], np.uint8)[0] = 1


def test_several_models_in_any_order(desk: Desk) -> None:
    models = [model(number) for number in range(4)]
    refs = [desk.publish(each) for each in models]
    reader = desk.reader(cache_bytes=1)
    for number in (2, 0, 3, 1, 1):
        assert same(desk.get(reader, refs[number]), models[number])
    assert desk.asked == []


def test_models_whose_chunks_come_between_each_other(desk: Desk) -> None:
    """Two jobs publish at once: reading the one must not make us miss the other."""
    models = [model(1), model(2)]
    refs = [desk.refer(each) for each in models]
    chunks = [list(iter_chunks(ref, each.tensors)) for ref, each in zip(refs, models, strict=True)]
    for first, second in zip(reversed(chunks[0]), chunks[1], strict=True):
        desk.chunk(refs[1].digest, *second)
        desk.chunk(refs[0].digest, *first)
        desk.chunk(refs[0].digest, *first)
    reader = desk.reader()
    for ref, sent in zip(refs, models, strict=True):
        assert same(desk.get(reader, ref), sent)
    assert desk.asked == []


def test_what_does_not_belong_to_a_model_is_passed_over(
    desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    sent = model(1)
    ref = desk.refer(sent)
    address = Address(MODELS, "job")
    desk.publisher.publish(address, Message(b"nothing of ours"))
    desk.publisher.publish(address, Message(b"", headers={"x-flmq-blob": ref.digest}))
    for index, data in [(99, b"x" * CHUNK), (0, b"short"), (5, b"x" * CHUNK), (2**40, b"x")]:
        desk.chunk(ref.digest, index, data)
    desk.publish(sent)
    assert same(desk.get(desk.reader(), ref), sent)
    assert caplog.text.count("passing over a message") == 5


def test_a_model_with_another_digest_is_refused(desk: Desk) -> None:
    sent, reader = model(1), desk.reader()
    ref = desk.refer(sent)
    desk.chunk(ref.digest, 0, b"x" * CHUNK)  # the first to come counts
    desk.publish(sent)
    with pytest.raises(MalformedMessage, match="as stated"):
        desk.get(reader, ref)
    desk.publish(sent)
    assert same(desk.get(reader, ref), sent)  # a later copy is another matter


def test_a_model_that_is_gone_from_the_stream_is_asked_for(desk: Desk) -> None:
    sent = model(1)
    ref = desk.refer(sent)
    got = desk.reader().get(ref, None, desk.asking(lambda: desk.publish(sent)))
    assert same(got, sent)
    assert len(desk.asked) == 1


@pytest.mark.parametrize("ahead", [HOUR, 2**62])
def test_a_model_of_a_time_to_come_is_read_where_it_lies(desk: Desk, ahead: int) -> None:
    """The server's clock is ahead of ours, or its word is no time at all."""
    sent = model(1)
    assert same(desk.get(desk.reader(), desk.publish(sent, published_in=ahead)), sent)
    assert desk.asked == []


def test_a_model_that_never_comes_is_given_up(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flmq.client.models.reader._ASK_AGAIN", 0.3)
    reader = desk.reader(patience=0.9)
    with pytest.raises(ModelNotFound, match="did not come though it was asked for 3 times"):
        reader.get(desk.refer(model(1)), None, desk.ask)
    assert len(desk.asked) == 3


def test_a_model_that_comes_slowly_is_not_given_up(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One chunk each time that it is asked for: more than would be given up otherwise."""
    monkeypatch.setattr("flmq.client.models.reader._ASK_AGAIN", 0.3)
    monkeypatch.setattr("flmq.client.models.reader._STALLED", 0.3)
    sent = model(1, 5 * CHUNK)
    ref = desk.refer(sent)
    left = list(iter_chunks(ref, sent.tensors))
    assert len(left) >= 4
    reader = desk.reader(patience=0.6)
    got = reader.get(ref, None, desk.asking(lambda: desk.chunk(ref.digest, *left.pop())))
    assert same(got, sent)


def test_one_that_has_not_come_whole_is_asked_for(desk: Desk) -> None:
    sent = model(1)
    ref = desk.refer(sent)
    for index, data in list(iter_chunks(ref, sent.tensors))[1:]:
        desk.chunk(ref.digest, index, data)
    got = desk.reader().get(ref, None, desk.asking(lambda: desk.publish(sent)))
    assert same(got, sent)
    assert len(desk.asked) == 1


def test_asking_is_not_repeated_at_once(desk: Desk) -> None:
    ref = desk.refer(model(1))
    with pytest.raises(ModelNotFound, match="did not come before the deadline"):
        desk.reader().get(ref, time.time() + 1.5, desk.ask)
    assert len(desk.asked) == 1


def test_who_asks_may_end_the_waiting(desk: Desk) -> None:
    def ask() -> None:
        raise ModelNotFound("the round is over")

    with pytest.raises(ModelNotFound, match="the round is over"):
        desk.reader().get(desk.refer(model(1)), None, ask)


def test_a_stream_that_was_made_anew_is_read_from_its_beginning(desk: Desk) -> None:
    """The offset after the last model is then far beyond its end."""
    reader = desk.reader()
    desk.get(reader, desk.publish(model(1)))
    desk.transport.delete_queue(MODELS)
    desk.transport.declare(federation_topology() + models_topology())
    sent = model(2)
    assert same(desk.get(reader, desk.publish(sent)), sent)
    assert desk.asked == []


def test_a_stream_that_is_made_anew_under_a_reader_is_read_from_its_beginning(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait for the offset where it was; what it asked for lies before that."""
    monkeypatch.setattr("flmq.client.models.reader._ASK_AGAIN", 1.5)
    desk, sent = Desk(rig.transport()), model(1)
    for number in range(10, 14):
        desk.publish(model(number))
    ref = desk.refer(sent)

    def answer() -> None:
        if len(desk.asked) == 1:
            rig.witness().delete_queue(MODELS)
            desk.transport.declare(federation_topology() + models_topology())
            desk.publish(sent)

    got = desk.reader().get(ref, time.time() + 30, desk.asking(answer))
    assert same(got, sent)
    assert len(desk.asked) == 1


def test_connections_that_break_meanwhile_do_not_matter(rig: Rig) -> None:
    desk, sent = Desk(rig.transport()), model(1, 40 * CHUNK)
    ref = desk.refer(sent)
    chunks = list(iter_chunks(ref, sent.tensors))
    reading = threading.Thread(target=lambda: got.append(desk.get(desk.reader(), ref)), daemon=True)
    got: list[Parameters] = []
    for number, (index, data) in enumerate(chunks):
        desk.chunk(ref.digest, index, data)
        if number == 10:
            reading.start()
        if number in (20, 30):
            rig.cut()
    reading.join(PATIENCE)
    assert same(got[0], sent)


def test_stopping_ends_the_waiting(desk: Desk) -> None:
    threading.Timer(0.5, desk.stopping.set).start()
    started = time.monotonic()
    with pytest.raises(TransportClosed):
        desk.reader().get(desk.refer(model(1)), None, desk.ask)
    assert time.monotonic() - started < 5.0


def test_a_model_that_is_too_large_is_refused_unread(desk: Desk) -> None:
    ref = desk.refer(model(1))
    with pytest.raises(ModelTooLarge, match="--max-model-bytes") as info:
        desk.get(desk.reader(max_model_bytes=ref.total - 1), ref)
    assert (info.value.size, info.value.limit) == (ref.total, ref.total - 1)


def test_memory_is_only_asked_for_where_it_is_needed(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of more than half the memory is there after it was read, and can be used again."""
    sent, reader = model(1), desk.reader()
    ref, other = desk.publish(sent), desk.publish(model(2))
    desk.get(reader, ref)
    monkeypatch.setattr("flmq.client.models.reader.available_memory", lambda: ref.total - 1)
    assert same(desk.get(reader, ref), sent)
    with pytest.raises(ModelTooLarge) as info:
        desk.get(reader, other)
    assert info.value.limit == ref.total - 1


def test_the_memory_that_is_free() -> None:
    assert 0 < available_memory() < 2**50


def test_who_may_not_declare_the_stream_reads_it_all_the_same(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(topology: Topology) -> None:
        raise BrokerAccessRefused(f"no permission to declare {topology.queues}")

    sent = model(1)
    ref = desk.publish(sent)
    monkeypatch.setattr(desk.transport, "declare", refuse)
    assert same(desk.reader().get(ref, None, desk.asking(lambda: None)), sent)


def test_a_stream_that_was_made_anew_while_its_reader_rested_is_read(
    desk: Desk, rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By others: who may not declare it has a reader that has lost it for good."""

    def refuse(topology: Topology) -> None:
        raise BrokerAccessRefused(f"no permission to declare {topology.queues}")

    transport = rig.transport()
    monkeypatch.setattr(transport, "declare", refuse)
    reader = ModelReader(transport, MemoryCache(0), stopping=desk.stopping)
    first, second = model(1), model(2)
    assert same(desk.get(reader, desk.publish(first)), first)
    rig.witness().delete_queue(MODELS)

    def is_lost() -> bool:
        try:
            resting = reader._resting._resting
            return resting is not None and resting.receive(0.0) is not None
        except BrokerRefusal:
            return True

    eventually(is_lost)
    rig.witness().declare(models_topology())
    assert same(desk.get(reader, desk.publish(second)), second)


def test_ones_own_model_is_asked_for_until_all_of_it_is_here(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others put into its queue is passed over."""
    monkeypatch.setattr("flmq.client.models.reader._STALLED", 0.3)
    monkeypatch.setattr("flmq.client.models.reader._ASK_AGAIN", 0.3)
    sent = model(7)
    ref = refer(sent, chunk_bytes=CHUNK)
    chunks = list(iter_chunks(ref, sent.tensors))
    parts = iter([chunks[:2], [], chunks[1:]])

    def serve() -> None:
        for index, data in [(0, b"foreign"), *next(parts)]:
            name = "f" * 64 if data == b"foreign" else ref.digest
            message = Message(data, headers=blob_chunk_headers(name, index))
            desk.publisher.publish(Address(TASKS, own_model_key("main", "a")), message)

    own = own_models_topology("a")
    got = desk.reader().get(ref, time.time() + PATIENCE, desk.asking(serve), own)
    assert same(got, sent)
    assert len(desk.asked) == 3


def test_a_reader_rests_between_models_and_is_sent_none_unasked(desk: Desk) -> None:
    opened: list[int] = []
    consumer = desk.transport.consumer

    def opening(queues: Sequence[str], *, prefetch: int, **options: Any) -> Consumer:
        opened.append(prefetch)
        return consumer(queues, prefetch=prefetch, **options)

    desk.transport.consumer = opening  # type: ignore[method-assign]
    reader, sizes = desk.reader(cache_bytes=1), [5 * CHUNK + 1, 5 * CHUNK + 1, 40 * CHUNK, CHUNK]
    for number, size in enumerate(sizes):
        sent = model(number, size)
        ref = desk.publish(sent)
        resting = reader._resting._resting
        if resting is not None:
            assert resting.receive(0.3) is None
        assert same(desk.get(reader, ref), sent)
    assert opened == [6, 16, 1]
    assert desk.asked == []


def test_a_reader_that_rested_for_long_is_closed(desk: Desk) -> None:
    now = [0.0]
    reader = ModelReader(
        desk.transport,
        MemoryCache(1),
        stopping=desk.stopping,
        clock=lambda: now[0] + time.monotonic(),
    )
    desk.get(reader, desk.publish(model(1)))
    resting = reader._resting._resting
    assert resting is not None
    reader.look()
    assert resting.receive(0.0) is None
    now[0] = 31.0
    reader.look()
    with pytest.raises(TransportClosed):
        resting.receive(0.0)
    sent = model(2)
    assert same(desk.get(reader, desk.publish(sent)), sent)


def test_a_model_that_comes_over_a_slow_link_crosses_it_once(
    broker_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each chunk takes longer than a reader waits for a silent stream, and so does the first."""
    monkeypatch.setattr("flmq.client.models.reader._QUIET", 1.5)
    rig = RabbitMQRig(broker_url)
    try:
        near, far = Desk(rig.witness()), Desk(rig.transport())
        reader = far.reader()
        for number in range(2):
            sent = model(number, 2 * SLOW_CHUNK)
            ref = near.publish(sent, chunk_bytes=SLOW_CHUNK)
            rig.proxy.throttle(SLOW_CHUNK / 2)
            before = rig.proxy.to_client_bytes
            assert same(reader.get(ref, None, far.ask), sent)
            assert rig.proxy.to_client_bytes - before < 1.3 * len(sent.tensors[2])
            rig.proxy.throttle(None)
        assert far.asked == []
    finally:
        rig.proxy.throttle(None)
        rig.close()
