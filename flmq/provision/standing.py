"""What stands on a broker, as definitions: a few calls, however many clients it has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from flmq.broker.management import Management, NoSuchThing
from flmq.common.errors import BrokerRefusal
from flmq.provision.wanted import ASPECTS, KEYS, KINDS, Definitions
from flmq.sites.brokers import naming
from flmq.sites.federation import Site

__all__ = ["PATIENCE", "look"]

PATIENCE = 300.0
"""Seconds for a call: what ten thousand clients have are some megabytes."""


def look(site: Site) -> Definitions:
    """Return the definitions of the virtual host of ``site``, and all users of its broker.

    Without the virtual host, they are the users alone.

    Raises:
        BrokerError: the management API does not answer, or refuses.
    """
    with naming(site):
        return _look(site.management.patient(PATIENCE), site.vhost)


def _look(api: Management, vhost: str) -> Definitions:
    lists: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    name = quote(vhost, safe="")
    lists["users"] = _checked(api, "users", api.call("GET", "/api/users"))
    try:
        api.call("GET", f"/api/vhosts/{name}")
    except NoSuchThing:
        return lists
    lists["vhosts"] = [{"name": vhost}]
    for kind, path in (
        ("permissions", f"vhosts/{name}/permissions"),
        ("topic_permissions", f"vhosts/{name}/topic-permissions"),
        ("policies", f"policies/{name}"),
        # Definitions of the virtual host would have these too, at four times the broker's time.
        ("queues", f"queues/{name}?disable_stats=true&columns={_columns('queues')}"),
        ("exchanges", f"exchanges/{name}?columns={_columns('exchanges')}"),
        ("bindings", f"bindings/{name}?columns={_columns('bindings')}"),
    ):
        lists[kind] = _checked(api, kind, api.call("GET", f"/api/{path}") or ())
    # What the default exchange routes by itself is no binding that anybody made.
    lists["bindings"] = [entry for entry in lists["bindings"] if entry["source"]]
    limits = api.call("GET", f"/api/vhost-limits/{name}") or ()
    lists["parameters"] = _checked(api, "parameters", [_limits(each) for each in limits])
    return lists


def _columns(kind: str) -> str:
    return ",".join((*KEYS[kind], *ASPECTS[kind]))


def _limits(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return limits of the virtual host as definitions have them."""
    return {"component": "vhost-limits", "name": "limits", "value": entry["value"]}


def _checked(api: Management, kind: str, found: object) -> list[Any]:
    """Return a list of entries that have what all of their kind have."""
    keys = (*KEYS[kind], *ASPECTS[kind])
    if isinstance(found, list | tuple) and all(
        isinstance(entry, Mapping) and all(key in entry for key in keys) for entry in found
    ):
        return list(found)
    raise BrokerRefusal(
        f"what answers at {api.shown_url} is no management API of RabbitMQ: it tells no {kind}"
    )
