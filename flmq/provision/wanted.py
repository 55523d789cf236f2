"""What the brokers of a tenant need, as definitions: lists of RabbitMQ's objects, by their kind.

The same data is imported by rabbitmqctl, compared with what stands, and posted to the management
API. See https://www.rabbitmq.com/docs/definitions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from flmq.provision.parties import Limits, Party, Role, Tenant, UserLimits
from flmq.provision.passwords import password_hash
from flmq.sites.definitions import add_items, definitions
from flmq.sites.federation import Site
from flmq.sites.wanted import items_of
from flmq.transport.provisioned import (
    provisioned_aggregator,
    provisioned_client,
    provisioned_mark,
    provisioned_ways,
)
from flmq.transport.topology import Topology, union

__all__ = [
    "ASPECTS",
    "KEYS",
    "KINDS",
    "Definitions",
    "Entry",
    "policies_of",
    "tag_of",
    "topology_of",
    "wanted",
]

Entry = Mapping[str, Any]
Definitions = Mapping[str, list[Any]]
"""Entries by the name of their list, as in a file of definitions."""

KINDS = (
    "vhosts", "users", "permissions", "topic_permissions", "parameters", "policies", "queues",
    "exchanges", "bindings",
)  # fmt: skip
"""The lists of definitions, in the order in which RabbitMQ makes them."""

KEYS: Mapping[str, tuple[str, ...]] = {
    "vhosts": ("name",),
    "users": ("name",),
    "permissions": ("user",),
    "topic_permissions": ("user", "exchange"),
    "parameters": ("component", "name"),
    "policies": ("name",),
    "queues": ("name",),
    "exchanges": ("name",),
    "bindings": ("source", "destination", "destination_type", "routing_key"),
}
"""What names an entry among those of its kind, on one virtual host."""
ASPECTS: Mapping[str, tuple[str, ...]] = {
    "vhosts": (),
    "users": ("password_hash", "tags"),
    "permissions": ("configure", "write", "read"),
    "topic_permissions": ("write", "read"),
    "parameters": ("value",),
    "policies": ("pattern", "apply-to", "priority", "definition"),
    "queues": ("durable", "arguments"),
    "exchanges": ("type", "durable", "internal"),
    "bindings": (),
}
"""What else of an entry matters."""

_OURS = "flmq.provision."
_PRIORITY = 100
_HASHING = "rabbit_password_hashing_sha256"


def wanted(tenant: Tenant, site: Site, hashes: Mapping[str, str]) -> Definitions:
    """Return all that the broker of ``site`` needs; ``hashes`` are those of users' passwords."""
    lists: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for kind, entries in definitions(tenant.federation, site).items():
        lists[kind] += entries
    parties = tenant.at(site.name)
    for party in parties:
        lists["users"].append(_user(party, site.vhost, hashes))
        lists["permissions"].append(_permission(party, site.vhost))
        lists["topic_permissions"] += _topic_permissions(party, site.vhost)
    lists["parameters"] += _vhost_limits(tenant.limits, site.vhost)
    lists["policies"] += policies_of(tenant.limits, site.vhost)
    here = union((provisioned_ways(site.name), *(topology_of(party) for party in parties)))
    add_items(lists, site.vhost, items_of(here))
    add_items(lists, site.vhost, items_of(provisioned_mark()))
    return lists


def topology_of(party: Party) -> Topology:
    """Return the queues of a party and their bindings; they stay until provision removes them."""
    if party.role is Role.AGGREGATOR:
        return provisioned_aggregator(party.site, party.below)
    return union(provisioned_client(client_id, party.site) for client_id in party.client_ids)


def tag_of(vhost: str) -> str:
    """Return the tag by which users are known to be made by provision for a virtual host."""
    return f"flmq.provision@{quote(vhost, safe='')}"


def _user(party: Party, vhost: str, hashes: Mapping[str, str]) -> Entry:
    # Nobody logs in by an empty hash.
    if party.password is not None:
        hashed = password_hash(party.password)
    else:
        hashed = hashes[party.user] if party.has_password_file else ""
    return {
        "name": party.user,
        "password_hash": hashed,
        "hashing_algorithm": _HASHING,
        "tags": [tag_of(vhost), *party.tags],
        "limits": _user_limits(party.limits),
    }


def _user_limits(limits: UserLimits) -> dict[str, int]:
    each = {"max-connections": limits.connections, "max-channels": limits.channels}
    return {key: value for key, value in each.items() if value is not None}


def _permission(party: Party, vhost: str) -> Entry:
    rights = party.rights
    return {
        "user": party.user,
        "vhost": vhost,
        "configure": rights.configure,
        "write": rights.write,
        "read": rights.read,
    }


def _topic_permissions(party: Party, vhost: str) -> Iterator[Entry]:
    for topic in party.rights.topics:
        yield {
            "user": party.user,
            "vhost": vhost,
            "exchange": topic.exchange,
            "write": topic.write,
            "read": topic.read,
        }


def _vhost_limits(limits: Limits, vhost: str) -> Iterator[Entry]:
    each = {"max-connections": limits.connections, "max-queues": limits.queues}
    value = {key: number for key, number in each.items() if number is not None}
    if value:
        yield {"vhost": vhost, "component": "vhost-limits", "name": "limits", "value": value}


def policies_of(limits: Limits, vhost: str) -> Iterator[Entry]:
    """Yield the policies that limit queues: unlike arguments, they can be changed."""
    clients = {"max-length": limits.queue_messages, "max-length-bytes": limits.queue_bytes}
    if given := {key: value for key, value in clients.items() if value is not None}:
        # The oldest tasks of a client that is away go first; whatever is open is sent again.
        yield _policy("clients", r"^flmq\.client\.", {**given, "overflow": "drop-head"}, vhost)
    if limits.job_bytes is not None:
        jobs = {"max-length-bytes": limits.job_bytes, "overflow": "reject-publish"}
        yield _policy("jobs", r"^flmq\.(replies|uploads|regional|partials)\.", jobs, vhost)


def _policy(what: str, pattern: str, definition: Mapping[str, Any], vhost: str) -> Entry:
    return {
        "vhost": vhost,
        "name": f"{_OURS}{what}",
        "pattern": pattern,
        "apply-to": "queues",
        "priority": _PRIORITY,
        "definition": dict(definition),
    }
