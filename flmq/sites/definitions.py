"""What a site's broker needs, as definitions that ``rabbitmqctl import_definitions`` takes.

For brokers whose management API is out of reach. An import adds and changes, and removes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from flmq.sites.federation import Federation, Site
from flmq.sites.wanted import COMPONENTS, Item, Kind, wanted

__all__ = ["add_items", "definitions"]

_LISTS = {
    Kind.EXCHANGE: "exchanges",
    Kind.QUEUE: "queues",
    Kind.BINDING: "bindings",
    Kind.UPSTREAM: "parameters",
    Kind.UPSTREAM_SET: "parameters",
    Kind.POLICY: "policies",
}


def definitions(federation: Federation, site: Site) -> dict[str, Any]:
    """Return the definitions; they hold the passwords of links."""
    lists: dict[str, Any] = {"vhosts": [{"name": site.vhost}]}
    for name in _LISTS.values():
        lists[name] = []
    add_items(lists, site.vhost, wanted(federation, site))
    return lists


def add_items(lists: Mapping[str, list[Any]], vhost: str, items: Iterable[Item]) -> None:
    """Add to the lists of definitions those of ``items``."""
    for item in items:
        lists[_LISTS[item.kind]].append({"vhost": vhost, **_entry(item)})


def _entry(item: Item) -> dict[str, Any]:
    match item.kind:
        case Kind.BINDING:
            to = {"e": "exchange", "q": "queue"}[item.value["to"]]
            ends = {key: item.value[key] for key in ("source", "destination", "routing_key")}
            return {**ends, "destination_type": to, "arguments": {}}
        case Kind.UPSTREAM | Kind.UPSTREAM_SET:
            return {"component": COMPONENTS[item.kind], "name": item.name, **item.value}
        case Kind.EXCHANGE:
            more = {"auto_delete": False, "arguments": {}}
            return {"name": item.name, **item.value, **more}
        case Kind.QUEUE:
            return {"name": item.name, **item.value, "auto_delete": False}
        case _:
            return {"name": item.name, **item.value}
