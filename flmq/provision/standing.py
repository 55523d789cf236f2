"""What stands on a broker, as definitions: a few calls, however many clients it has."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from flmq.broker.management import Management, NoSuchThing
from flmq.provision.wanted import KINDS, Definitions
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
    lists["users"] = api.call("GET", "/api/users")
    try:
        api.call("GET", f"/api/vhosts/{name}")
    except NoSuchThing:
        return lists
    lists["vhosts"] = [{"name": vhost}]
    lists["permissions"] = api.call("GET", f"/api/vhosts/{name}/permissions")
    lists["topic_permissions"] = api.call("GET", f"/api/vhosts/{name}/topic-permissions")
    found = api.call("GET", f"/api/definitions/{name}")
    for kind in ("parameters", "policies", "queues", "exchanges", "bindings"):
        lists[kind] = found.get(kind, [])
    return lists
