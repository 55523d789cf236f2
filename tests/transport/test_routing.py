"""Conformance: who gets what, by exchanges and bindings."""

from __future__ import annotations

from itertools import product

import pytest

from flmq.common.errors import BrokerRefusal
from flmq.transport import (
    DEAD,
    PRESENCE,
    REPLIES,
    TASKS,
    Address,
    Binding,
    Exchange,
    ExchangeType,
    Message,
    Publisher,
    PublishOutcome,
    Topology,
    Transport,
    client_queue,
    client_topology,
    everybody_key,
    federation_topology,
    job_topology,
    presence_key,
    presence_queue,
    replies_queue,
    reply_key,
    task_key,
)
from tests.transport.rigs import PATIENCE, bodies, only, publish_all, queue

PATTERNS = {
    # Binding key: routing keys that it takes (RabbitMQ, tutorial five, and the AMQP 0-9-1 text).
    "main.alice": {"main.alice"},
    "*.alice": {"main.alice", "east.alice"},
    "main.#": {"main", "main.alice", "main.alice.job", "main.a.b.c"},
    "*.*.job": {"main.alice.job"},
    "#.job": {"main.alice.job", "job"},
    "main.#.c": {"main.a.b.c"},
    "#": {"", "main", "main.alice", "east.alice", "main.alice.job", "job", "main.a.b.c", "a..b"},
    "*": {"main", "job"},
    "a.*.b": {"a..b"},
    "": {""},
}


def outcome(publisher: Publisher, exchange: str, key: str) -> PublishOutcome:
    return publisher.publish(Address(exchange, key), Message(key.encode())).result(PATIENCE)


@pytest.fixture
def federation(transport: Transport) -> Transport:
    """Two clients, one of them elsewhere, and a job."""
    transport.declare(
        federation_topology()
        + client_topology("alice")
        + client_topology("bob")
        + client_topology("eve", site="east")
        + job_topology("job")
    )
    return transport


def test_a_task_goes_to_its_client_alone(federation: Transport, publisher: Publisher) -> None:
    assert outcome(publisher, TASKS, task_key("main", "alice")) is PublishOutcome.CONFIRMED
    assert len(only(federation.consumer([client_queue("alice")], prefetch=5), 1)) == 1
    only(federation.consumer([client_queue("bob")], prefetch=5), 0)


@pytest.mark.parametrize("key", ["main.carol", "alice", "", "east.eve", "main.alice.x"])
def test_a_task_for_nobody_comes_back(
    federation: Transport, publisher: Publisher, key: str
) -> None:
    """Eve is of a site that was not federated here."""
    assert outcome(publisher, TASKS, key) is PublishOutcome.UNROUTABLE


def test_everybody_of_a_site_is_reached_by_one_message(
    federation: Transport, publisher: Publisher
) -> None:
    federation.declare(federation_topology("east"))
    publish_all(publisher, Address(TASKS, everybody_key("main")), b"roll call")
    for name, count in (("alice", 1), ("bob", 1), ("eve", 0)):
        only(federation.consumer([client_queue(name)], prefetch=5), count)


def test_replies_go_to_their_job(federation: Transport, publisher: Publisher) -> None:
    federation.declare(job_topology("other"))
    assert outcome(publisher, REPLIES, reply_key("main", "alice", "job"))
    assert outcome(publisher, REPLIES, reply_key("east", "eve", "job"))
    assert (
        outcome(publisher, REPLIES, reply_key("main", "alice", "none")) is PublishOutcome.UNROUTABLE
    )
    replies = only(federation.consumer([replies_queue("job")], prefetch=5), 2)
    assert [delivery.routing_key for delivery in replies] == ["main.alice.job", "east.eve.job"]
    only(federation.consumer([replies_queue("other")], prefetch=5), 0)


def test_every_job_hears_who_is_present(federation: Transport, publisher: Publisher) -> None:
    federation.declare(job_topology("other"))
    publish_all(publisher, Address(PRESENCE, presence_key("main", "alice")), b"hello")
    for job in ("job", "other"):
        assert bodies(only(federation.consumer([presence_queue(job)], prefetch=5), 1)) == [b"hello"]


def test_the_dead_letter_queue_takes_anything(federation: Transport, publisher: Publisher) -> None:
    publish_all(publisher, Address(DEAD, "whatever"), b"dead")
    assert bodies(only(federation.consumer([DEAD], prefetch=5), 1)) == [b"dead"]


def test_topic_patterns(transport: Transport, publisher: Publisher) -> None:
    keys = sorted(PATTERNS["#"])
    names = {pattern: f"takes {pattern or 'nothing'}" for pattern in PATTERNS}
    topology = Topology(exchanges=(Exchange("topic", ExchangeType.TOPIC),))
    for pattern, name in names.items():
        topology += queue(name)
        topology += Topology(bindings=(Binding("topic", name, pattern),))
    transport.declare(topology)
    for key in keys:
        assert outcome(publisher, "topic", key) is PublishOutcome.CONFIRMED
    expected = {(p, k) for p, k in product(PATTERNS, keys) if k in PATTERNS[p]}
    consumer = transport.consumer(list(names.values()), prefetch=500)
    taken = only(consumer, len(expected))
    assert {(names[p], k) for p, k in expected} == {(d.queue, d.routing_key) for d in taken}


def test_a_queue_bound_twice_gets_one_copy(transport: Transport, publisher: Publisher) -> None:
    transport.declare(
        Topology(
            (Exchange("one", ExchangeType.TOPIC), Exchange("two", ExchangeType.FANOUT)),
            queue("q").queues,
            (
                Binding("one", "q", "a.*"),
                Binding("one", "q", "#"),
                Binding("one", "two", "a.b", to_exchange=True),
                Binding("two", "one", "", to_exchange=True),  # a circle
                Binding("two", "q", ""),
            ),
        )
    )
    publish_all(publisher, Address("one", "a.b"), b"once")
    only(transport.consumer(["q"], prefetch=5), 1)


def test_bindings_of_a_deleted_queue_are_gone(transport: Transport, publisher: Publisher) -> None:
    fanout = Topology((Exchange("all", ExchangeType.FANOUT),), (), ())
    transport.declare(fanout + queue("q") + Topology(bindings=(Binding("all", "q", ""),)))
    publish_all(publisher, Address("all", ""), b"1")
    transport.delete_queue("q")
    assert outcome(publisher, "all", "") is PublishOutcome.UNROUTABLE
    transport.declare(queue("q"))
    assert outcome(publisher, "all", "") is PublishOutcome.UNROUTABLE


@pytest.mark.parametrize(
    "binding",
    [Binding("none", "q", ""), Binding("there", "none", ""), Binding("there", "none", "", True)],
    ids=["source", "queue", "exchange"],
)
def test_a_binding_needs_both_its_ends(transport: Transport, binding: Binding) -> None:
    transport.declare(Topology((Exchange("there", ExchangeType.DIRECT),)) + queue("q"))
    with pytest.raises(BrokerRefusal, match="'none'"):
        transport.declare(Topology(bindings=(binding,)))
