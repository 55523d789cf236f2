"""What the broker of each site needs: objects of RabbitMQ, as data.

Tasks and models come down: a site's broker has an upstream at its parent. Replies, their chunks,
partial sums and presence go up: a parent's broker has upstreams at its children. Presence has
upstreams of its own, as it is worthless after a minute, and an hour of it would fill a broker. See
https://www.rabbitmq.com/docs/federation-reference.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from flmq.common.urls import BrokerUrl
from flmq.sites.federation import Federation, Site
from flmq.transport import (
    MODELS,
    PARTIALS,
    PRESENCE,
    REPLIES,
    TASKS,
    UPLOADS,
    Queue,
    Topology,
    federation_topology,
    models_topology,
)

__all__ = [
    "COMPONENTS",
    "DOWN",
    "OURS",
    "UP",
    "Item",
    "Kind",
    "buffer_name",
    "crossing",
    "items_of",
    "parent_url",
    "wanted",
    "wanted_buffers",
]

DOWN = (TASKS, MODELS)
"""Exchanges whose messages go from a parent to its children."""
_LASTING = (REPLIES, UPLOADS, PARTIALS)
UP = (*_LASTING, PRESENCE)
"""Exchanges whose messages go from a site to its parent."""

OURS = "flmq.sites."
"""Begins the names of all upstreams, sets and policies that flmq makes, and changes."""
_PRIORITY = 100
_PRESENCE_TTL = 60
_PRESENCE_PREFETCH = 256


class Kind(StrEnum):
    """Kinds of objects, in the order in which they are made."""

    EXCHANGE = "exchange"
    QUEUE = "queue"
    BINDING = "binding"
    UPSTREAM = "upstream"
    UPSTREAM_SET = "upstream set"
    POLICY = "policy"
    BUFFER = "buffer"
    """A queue of messages on their way to another broker, which RabbitMQ makes for a link."""


COMPONENTS = {
    Kind.UPSTREAM: "federation-upstream",
    Kind.UPSTREAM_SET: "federation-upstream-set",
}
"""What RabbitMQ calls the kinds that it keeps as parameters of a plugin."""


@dataclass(frozen=True, slots=True)
class Item:
    """An object on a broker."""

    kind: Kind
    name: str
    value: Mapping[str, Any] = field(default_factory=dict)
    """What the management API takes and tells of it; may hold a password."""


def wanted(federation: Federation, site: Site) -> Iterator[Item]:
    """Yield what the broker of ``site`` needs: what every process of flmq declares, and links."""
    yield from items_of(federation_topology(site.name) + models_topology())
    hops = federation.depth
    children = federation.children(site.name)
    if site.parent is not None:
        name = f"{OURS}down.{site.parent}"
        down = _upstream(parent_url(federation, site), site, hops)
        yield Item(Kind.UPSTREAM, name, {"value": down})
        yield _policy("down", DOWN, {"federation-upstream": name})
    if children:
        for child in children:
            up = _upstream(child.link_url, child, hops)
            yield Item(Kind.UPSTREAM, f"{OURS}up.{child.name}", {"value": up})
            presence = {
                **up,
                "prefetch-count": _PRESENCE_PREFETCH,
                "message-ttl": _PRESENCE_TTL * 1000,
            }
            yield Item(Kind.UPSTREAM, f"{OURS}presence.{child.name}", {"value": presence})
        for what, exchanges in (("up", _LASTING), ("presence", (PRESENCE,))):
            name = f"{OURS}{what}"
            members = [{"upstream": f"{name}.{child.name}"} for child in children]
            yield Item(Kind.UPSTREAM_SET, name, {"value": members})
            yield _policy(what, exchanges, {"federation-upstream-set": name})


def wanted_buffers(
    federation: Federation, site: Site, clusters: Mapping[str, str]
) -> Iterator[str]:
    """Yield the names of the buffers on ``site``'s broker, as far as their readers are known.

    ``clusters`` are cluster names of sites' brokers; a buffer is named after its reader's.
    """
    for reader in federation.neighbours(site.name):
        if reader.name in clusters:
            for exchange in crossing(site, reader):
                yield buffer_name(exchange, site, reader, clusters[reader.name])


def crossing(source: Site, target: Site) -> tuple[str, ...]:
    """Return the exchanges whose messages cross the link from ``source`` to its neighbour."""
    return DOWN if target.parent == source.name else UP


def buffer_name(exchange: str, site: Site, reader: Site, cluster: str) -> str:
    """Return RabbitMQ's name of the queue at ``site`` for the link to ``reader`` in ``cluster``."""
    there = "" if reader.vhost == site.vhost else f":{reader.vhost}:{exchange}"
    return f"federation: {exchange} -> {cluster}{there}"


def parent_url(federation: Federation, site: Site) -> BrokerUrl:
    """Return where the broker of ``site``, which is not the hub, reaches its parent's."""
    parent = federation[site.parent or ""]
    return (site.parent_url or parent.link_url).with_vhost(parent.vhost)


def _upstream(source: BrokerUrl, below: Site, hops: int) -> dict[str, Any]:
    """Return the upstream at ``source`` of a link; ``below`` is the lower of its two sites."""
    return {
        "uri": source.full,
        "prefetch-count": below.link.prefetch,
        "expires": below.link.expires * 1000,
        "ack-mode": "on-confirm",
        "max-hops": hops,
        "trust-user-id": True,
        "reconnect-delay": 5,
    }


def _policy(what: str, exchanges: tuple[str, ...], definition: Mapping[str, str]) -> Item:
    words = "|".join(exchange.removeprefix("flmq.") for exchange in exchanges)
    value = {
        "pattern": rf"^flmq\.({words})$",
        "apply-to": "exchanges",
        "priority": _PRIORITY,
        "definition": dict(definition),
    }
    return Item(Kind.POLICY, f"{OURS}{what}", value)


def items_of(topology: Topology) -> Iterator[Item]:
    """Yield what ``topology`` has as objects on a broker, in the order in which they are made."""
    for exchange in topology.exchanges:
        value = {"type": exchange.type.value, "durable": True, "internal": exchange.internal}
        yield Item(Kind.EXCHANGE, exchange.name, value)
    for queue in topology.queues:
        yield Item(Kind.QUEUE, queue.name, _queue(queue))
    for binding in topology.bindings:
        kind = "e" if binding.to_exchange else "q"
        value = {
            "source": binding.source,
            "destination": binding.destination,
            "to": kind,
            "routing_key": binding.routing_key,
        }
        name = f"{binding.source} to {binding.destination} by {binding.routing_key!r}"
        yield Item(Kind.BINDING, name, value)


def _queue(queue: Queue) -> dict[str, Any]:
    return {
        "durable": queue.durable,
        "arguments": {"x-queue-type": queue.type.value, **queue.arguments},
    }
