"""Publishing models: once, by digest, and once more for who cannot find them."""

from __future__ import annotations

import pytest

from flmq.common import EvaluateIns, FitIns, GetPropertiesIns, Parameters
from flmq.common.errors import BrokerRefusal, ModelTooLarge
from flmq.messaging import Sender
from flmq.server.job.request import Ask
from flmq.server.models.published_models import PublishedModels
from flmq.testing import MemoryBroker, MemoryTransport
from flmq.transport import (
    MODELS,
    Transport,
    federation_topology,
    models_topology,
    own_models_queue,
    own_models_topology,
)
from flmq.wire import INLINE_BYTES, blob_chunk_of
from flmq.wire.blobs import BLOB_CHUNK_BYTES
from tests.transport.rigs import QUIET, Rig, eventually, only

LARGE = INLINE_BYTES + 1


def model(number: int, size: int = LARGE) -> Parameters:
    return Parameters([bytes([number]) * size], "numpy.ndarray")


def asks(parameters: Parameters, *clients: str) -> dict[str, Ask]:
    return {client: Ask(client, FitIns(parameters, {})) for client in clients}


@pytest.fixture
def transport(rig: Rig) -> Transport:
    transport = rig.transport()
    transport.declare(federation_topology() + models_topology())
    return transport


class Time:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def models(transport: Transport, time: Time) -> PublishedModels:
    return PublishedModels(Sender(transport.publisher()), "job", clock=time)


def in_stream(transport: Transport) -> list[tuple[str, int]]:
    """What was published so far: whose, and which chunk."""
    consumer = transport.consumer([MODELS], prefetch=1000, offset="first")
    found = []
    patience = 2.0  # a reader of a stream takes its time to begin
    while (delivery := consumer.receive(patience)) is not None:
        chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
        assert chunk is not None
        found.append((chunk.name, chunk.index))
        patience = QUIET
    consumer.close()
    return found


def test_what_is_shared_is_published_once(models: PublishedModels, transport: Transport) -> None:
    shared = model(1, 2 * BLOB_CHUNK_BYTES + 5)
    refs = models.refer(asks(shared, *"abcdefgh"))
    assert set(refs) == set("abcdefgh")
    (ref,) = set(refs.values())
    assert models.publish(refs.values()) == ref.total == 2 * BLOB_CHUNK_BYTES + 5
    assert in_stream(transport) == [(ref.digest, 0), (ref.digest, 1), (ref.digest, 2)]


def test_the_same_again_is_not_published(models: PublishedModels, transport: Transport) -> None:
    for _ in range(3):  # fit, evaluate of an unchanged model, the next round
        equal = Parameters([bytes(model(1).tensors[0])], "numpy.ndarray")
        refs = models.refer(asks(equal, "a", "b"))
        models.publish(refs.values())
        models.release(refs.values())
    assert in_stream(transport) == [(refs["a"].digest, 0)]


def test_what_is_small_rides_in_its_task(models: PublishedModels) -> None:
    assert models.refer(asks(model(1, INLINE_BYTES), "a", "b")) == {}
    assert models.refer({**asks(model(1, 9), "a"), **asks(model(2, 9), "b")}) == {}
    assert models.refer({name: Ask(name, GetPropertiesIns({})) for name in "ab"}) == {}


def test_what_is_one_clients_own_is_sent_to_it_alone_when_it_asks(
    models: PublishedModels, transport: Transport
) -> None:
    transport.declare(own_models_topology("a"))
    refs = models.refer({**asks(model(1), "a"), **asks(model(2), "b")})
    mine, other = refs["a"], refs["b"]
    assert not mine.is_shared
    assert models.publish(refs.values()) == 0
    assert not models.publish_again(mine.digest)
    assert models.send_own(other.digest, "a", "main") == 0  # another's
    assert models.send_own("0" * 64, "a", "main") == 0
    assert models.send_own(mine.digest, "a", "main") == LARGE
    assert models.send_own(mine.digest, "a", "main") == 0  # it is on its way
    [delivery] = only(transport.consumer([own_models_queue("a")], prefetch=10), 1)
    chunk = blob_chunk_of(delivery.message.headers, delivery.message.body)
    assert chunk is not None
    assert (chunk.name, chunk.index) == (mine.digest, 0)
    assert delivery.message.expiration == 600
    models.release(refs.values())
    assert models.send_own(mine.digest, "a", "main") == 0
    assert in_stream(transport) == []


def test_one_clients_own_that_others_share_is_in_the_stream(models: PublishedModels) -> None:
    own = models.refer({**asks(model(1), "a"), **asks(model(2), "b")})
    refs = models.refer({**asks(model(1), "a"), **asks(model(3), "b", "c"), **asks(model(1), "d")})
    assert not refs["a"].is_shared
    later = models.refer(asks(model(1), "a", "b"))
    assert later["a"].is_shared
    assert models.publish(later.values()) == LARGE
    for each in (own, refs, later):
        models.release(each.values())


def test_the_only_client_of_a_round_gets_a_shared_model(models: PublishedModels) -> None:
    assert set(models.refer(asks(model(1), "a"))) == {"a"}


def test_groups_of_clients_each_share_theirs(models: PublishedModels, transport: Transport) -> None:
    """Also more groups than are remembered."""
    groups = [asks(model(number), f"a{number}", f"b{number}") for number in range(12)]
    together = {name: ask for group in groups for name, ask in group.items()}
    together |= asks(model(99), "alone")
    refs = models.refer(together)
    assert not refs.pop("alone").is_shared
    assert len(refs) == 24
    assert len({ref.digest for ref in refs.values()}) == 12
    assert models.publish(refs.values()) == 12 * LARGE
    assert all(models.publish_again(ref.digest) for ref in refs.values())
    models.release(refs.values())
    assert sorted(set(in_stream(transport))) == sorted((r.digest, 0) for r in set(refs.values()))
    assert not any(models.publish_again(ref.digest) for ref in refs.values())


def test_a_model_in_flight_is_published_again_but_not_for_everybody_who_asks(
    models: PublishedModels, transport: Transport, time: Time
) -> None:
    refs = models.refer(asks(model(1), "a", "b"))
    digest = refs["a"].digest
    models.publish(refs.values())
    assert [models.publish_again(digest) for _ in range(50)] == [True] * 50
    eventually(lambda: in_stream(transport) == [(digest, 0)] * 2)
    assert models.publish_again(digest)
    assert in_stream(transport) == [(digest, 0)] * 2
    time.now += 3.1
    assert models.publish_again(digest)
    eventually(lambda: in_stream(transport) == [(digest, 0)] * 3)
    models.release(refs.values())
    assert not models.publish_again(digest)
    assert not models.publish_again("0" * 64)
    equal = model(1)
    again = models.refer({name: Ask(name, EvaluateIns(equal, {})) for name in "ab"})
    assert models.publish(again.values()) == 0
    assert models.publish_again(digest)  # a phase needs it again
    eventually(lambda: in_stream(transport) == [(digest, 0)] * 4)


class Uplink:
    """A job's models, and one client's queue for its own, over a broker with faults on demand."""

    def __init__(self, size: int) -> None:
        self.broker = MemoryBroker()
        self.transport = MemoryTransport(self.broker)
        self.transport.declare(federation_topology() + own_models_topology("a"))
        self.time = Time()
        sender = Sender(self.transport.publisher())
        self.models = PublishedModels(sender, "job", clock=self.time)
        refs = self.models.refer({**asks(model(1, size), "a"), **asks(model(2), "b")})
        self.ref = refs["a"]

    def ask(self) -> int:
        return self.models.send_own(self.ref.digest, "a", "main")

    def arrived(self) -> int:
        """How many chunks lie in the client's queue."""
        info = self.transport.inspect_queue(own_models_queue("a"))
        return 0 if info is None else info.messages_ready


def test_a_model_that_does_not_fit_the_window_holds_up_nobody_who_hears_requests() -> None:
    uplink = Uplink(20 * BLOB_CHUNK_BYTES)
    uplink.broker.block()
    assert uplink.ask() == 20 * BLOB_CHUNK_BYTES
    uplink.broker.unblock()
    eventually(lambda: uplink.arrived() == 20)


def test_one_copy_at_a_time_is_under_way_to_a_client_however_often_it_asks() -> None:
    uplink = Uplink(10 * BLOB_CHUNK_BYTES)
    uplink.broker.block()
    assert uplink.ask()
    for _ in range(100):
        uplink.time.now += 5.0  # a client's patience
        assert uplink.ask() == 0
    uplink.broker.unblock()
    eventually(lambda: uplink.arrived() == 10)
    uplink.time.now += 3.9  # it reads 10 MiB a second at least
    assert uplink.ask() == 0
    uplink.time.now += 0.2
    assert uplink.ask()
    eventually(lambda: uplink.arrived() == 20)


def test_what_did_not_arrive_is_sent_to_who_asks_again() -> None:
    uplink = Uplink(LARGE)
    uplink.transport.delete_queue(own_models_queue("a"))
    assert uplink.ask()
    eventually(lambda: uplink.ask() > 0)  # it came back, for want of a queue
    uplink.transport.declare(own_models_topology("a"))
    eventually(lambda: uplink.ask() > 0 or uplink.arrived() > 0)
    eventually(lambda: uplink.arrived() > 0)


def test_a_model_is_at_hand_until_the_last_phase_that_needs_it_is_over(
    models: PublishedModels,
) -> None:
    first, second = (models.refer(asks(model(1), "a", "b")) for _ in range(2))
    models.release(first.values())  # before it published anything
    assert models.publish(second.values()) == LARGE
    assert models.publish_again(second["a"].digest)
    models.release(second.values())
    assert not models.publish_again(second["a"].digest)


def test_one_that_the_stream_cannot_keep_is_refused(
    models: PublishedModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flmq.server.models.published_models.STREAM_MAX_BYTES", 2 * LARGE - 1)
    refs = models.refer(asks(model(1), "a", "b"))
    with pytest.raises(ModelTooLarge, match=f"a model of {LARGE} bytes") as info:
        models.publish(refs.values())
    assert (info.value.size, info.value.limit) == (LARGE, 2 * LARGE - 1)


def test_a_stream_that_was_deleted_by_hand_is_named(
    models: PublishedModels, transport: Transport
) -> None:
    transport.delete_queue(MODELS)
    refs = models.refer(asks(model(1), "a", "b"))
    with pytest.raises(BrokerRefusal, match="the stream of models is gone"):
        models.publish(refs.values())


def test_a_stream_that_was_deleted_is_made_anew(transport: Transport) -> None:
    def declare() -> None:
        transport.declare(federation_topology() + models_topology())

    models = PublishedModels(Sender(transport.publisher()), "job", declare)
    shared = model(1, 2 * BLOB_CHUNK_BYTES + 5)
    refs = models.refer(asks(shared, "a", "b"))
    transport.delete_queue(MODELS)
    assert models.publish(refs.values()) == refs["a"].total
    assert {index for _, index in in_stream(transport)} == {0, 1, 2}


def test_who_reads_a_stream_that_somebody_deleted_has_it_made_anew(
    rig: Rig, transport: Transport
) -> None:
    rig.witness().delete_queue(MODELS)
    assert in_stream(transport) == []


def test_another_site_gets_a_model_again_only_when_a_slow_link_would_have_brought_it(
    models: PublishedModels, transport: Transport, time: Time
) -> None:
    refs = models.refer(asks(model(1), "a", "b"))
    digest = refs["a"].digest
    models.publish(refs.values())
    copies = 1
    for wait in (3.0, 6.0, 12.0):  # each copy makes the queue before a slow link longer
        for _ in range(20):
            assert models.publish_again(digest, "eu-west")
            time.now += wait / 25
        assert in_stream(transport) == [(digest, 0)] * copies
        time.now += wait
        assert models.publish_again(digest, "eu-west")
        copies += 1
        assert_copies(transport, digest, copies)


def test_another_site_gets_a_model_again_within_the_patience_of_its_clients_and_is_told_of(
    models: PublishedModels, transport: Transport, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    refs = models.refer(asks(model(1), "a", "b"))
    digest = refs["a"].digest
    models.publish(refs.values())
    for copies in range(2, 12):
        caplog.clear()
        for _ in range(3):
            models.publish_again(digest, "eu-west")
            time.now += 0.5
        (line,) = [r.getMessage() for r in caplog.records if "at another site" in r.getMessage()]
        assert "it is sent again in " in line
        time.now += 300.0
        models.publish_again(digest, "eu-west")
        assert_copies(transport, digest, copies)


def assert_copies(transport: Transport, digest: str, copies: int) -> None:
    eventually(lambda: in_stream(transport) == [(digest, 0)] * copies)
