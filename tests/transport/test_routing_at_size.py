"""The memory broker among thousands of queues: what a message costs does not grow with them."""

from __future__ import annotations

import pytest

from flmq.common.errors import BrokerRefusal
from flmq.transport import Exchange, ExchangeType, client_topology, federation_topology
from flmq.transport.memory import routing
from flmq.transport.memory.routing import Router
from flmq.transport.topology import TASKS, Binding, Topology, client_queue, everybody_key, task_key


def _router(topology: Topology) -> Router:
    router = Router()
    for exchange in topology.exchanges:
        router.declare(exchange)
    for queue in topology.queues:
        router.add_queue(queue.name)
    for binding in topology.bindings:
        router.bind(binding)
    return router


def test_only_patterns_with_wildcards_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    matches = routing.topic_matches

    def counted(pattern: str, routing_key: str) -> bool:
        nonlocal tried
        tried += 1
        return matches(pattern, routing_key)

    monkeypatch.setattr(routing, "topic_matches", counted)
    ids = [str(i) for i in range(2000)]
    router = _router(federation_topology("here"))
    for client_id in ids:
        one = client_topology(client_id, "here")
        router.add_queue(one.queues[0].name)
        for binding in one.bindings:
            router.bind(binding)
    for client_id in ids:
        assert router.route(TASKS, task_key("here", client_id)) == (client_queue(client_id),)
    everybody = tuple(map(client_queue, ids))
    assert router.route(TASKS, everybody_key("here")) == everybody
    assert tried <= 2 * (len(ids) + 1)


def test_queues_come_in_the_order_of_their_bindings_whatever_their_patterns() -> None:
    router = Router()
    router.declare(Exchange("x", ExchangeType.TOPIC))
    for queue, pattern in (("a", "k.*"), ("b", "k.l"), ("c", "#"), ("d", "k.l"), ("a", "k.l")):
        router.add_queue(queue)
        router.bind(Binding("x", queue, pattern))
    assert router.route("x", "k.l") == ("a", "b", "c", "d")
    assert router.route("x", "k.*") == ("a", "c")  # a key of a message has no wildcards
    router.remove_queue("b")
    router.remove_queue("a")
    assert router.route("x", "k.l") == ("c", "d")
    assert router.route("", "a") == ()
    with pytest.raises(BrokerRefusal, match="no exchange"):
        router.route("y", "k.l")
