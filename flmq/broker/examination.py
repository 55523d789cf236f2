"""Examine a broker by its management API: alarms, room for connections, its clock, certificates."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flmq.broker.check import Check
from flmq.broker.management import Management
from flmq.common.errors import BrokerError
from flmq.common.urloptions import server_name_of, tls_context
from flmq.common.urls import BrokerUrl

__all__ = ["certificate", "examine"]

_CONNECTIONS = 3
"""Connections of a process of flmq."""
_OF_CLIENTS = "^flmq\\.client\\."
_CLOCKS_APART = 5.0
"""Seconds that a clock may be off: the API tells whole seconds, and is asked over a network."""
_EXPIRES_SOON = 14
"""Days before a certificate's end in which it wants renewing."""
_MB = 1e6


def examine(api: Management | None, address: BrokerUrl) -> Iterator[Check]:
    """Yield what the management API says of the nodes, of room for connections, and of the time.

    Each finding that cannot be had says why; nothing is raised.
    """
    for name, look in (
        ("node alarms", _alarms),
        ("connections", _connections),
        ("clocks", _clocks),
    ):
        if api is None:
            yield Check(name, None, "not asked, as the plugins were not")
            continue
        try:
            yield look(api, address)
        except BrokerError as error:
            yield Check(
                name,
                None,
                f"not known: {error}",
                "name the management API, and a user with the tag monitoring: "
                "FLMQ_MANAGEMENT_URL=https://user:password@host:15671",
            )


def _alarms(api: Management, address: BrokerUrl) -> Check:
    """Say which alarm stands, and on which node: while one does, nobody may publish."""
    found: list[str] = []
    mend: list[str] = []
    nodes = _listed(api.call("GET", "/api/nodes"))
    for node in nodes:
        name = node.get("name")
        if node.get("running") is False:
            found.append(f"{name} is down")
            mend.append(f"start {name}, or take it out: rabbitmqctl forget_cluster_node {name}")
        if node.get("mem_alarm"):
            used, limit = _amount(node, "mem_used"), _amount(node, "mem_limit")
            found.append(
                f"{name} has a memory alarm: {used / _MB:.0f} MB used of {limit / _MB:.0f} MB"
            )
            mend.append("give it memory, or rabbitmqctl set_vm_memory_high_watermark 0.7")
        if node.get("disk_free_alarm"):
            free, limit = _amount(node, "disk_free"), _amount(node, "disk_free_limit")
            found.append(
                f"{name} has a disk alarm: {free / _MB:.0f} MB free of {limit / _MB:.0f} MB wanted"
            )
            mend.append("make room on its disk, or rabbitmqctl set_disk_free_limit 1GB")
    if found:
        return Check("node alarms", False, "; ".join(found), "; ".join(dict.fromkeys(mend)))
    return Check("node alarms", True, f"none on {len(nodes)} of {len(nodes)} nodes")


def _connections(api: Management, address: BrokerUrl) -> Check:
    """Compare how many connections are there, are allowed, and are needed."""
    vhost, user = quote(address.vhost, safe=""), quote(address.user, safe="")
    columns = urlencode({"columns": "user"})
    there = _listed(api.call("GET", f"/api/vhosts/{vhost}/connections?{columns}"))
    mine = sum(each.get("user") == address.user for each in there)
    limits = {
        "of the virtual host": (len(there), _limit(api, f"/api/vhost-limits/{vhost}")),
        f"of user {address.user}": (mine, _limit(api, f"/api/user-limits/{user}")),
    }
    for node in _listed(api.call("GET", "/api/nodes")):
        total = _amount(node, "sockets_total") or _amount(node, "fd_total")
        used = _amount(node, "sockets_used") or _amount(node, "fd_used")
        if total:
            limits[f"that {node.get('name')} has descriptors for"] = (int(used), int(total))
    query = urlencode(
        {"name": _OF_CLIENTS, "use_regex": "true", "page": 1, "page_size": 1, "columns": "name"}
    )
    answer = api.call("GET", f"/api/queues/{vhost}?{query}")
    clients = int(_amount(answer, "filtered_count")) if isinstance(answer, Mapping) else 0
    needed = _CONNECTIONS * (clients + 1)
    said = [
        f"{used} of {allowed} {what}" for what, (used, allowed) in limits.items() if allowed >= 0
    ]
    found = (
        f"{len(there)} are there; {clients} clients and a server need {needed} if each is a "
        f"process of its own ({_CONNECTIONS} each); allowed: {', '.join(said) or 'any number'}"
    )
    tight = [what for what, (used, allowed) in limits.items() if 0 <= allowed < used + _CONNECTIONS]
    mend = (
        f"rabbitmqctl set_vhost_limits -p {address.vhost} '{{\"max-connections\": {needed}}}'; "
        f"rabbitmqctl set_user_limits {address.user} '{{\"max-connections\": N}}'; descriptors: "
        "ulimit -n, LimitNOFILE; or serve several clients by a process (--client-ids)"
    )
    if tight:
        return Check("connections", False, f"{found}; no room {' and '.join(tight)}", mend)
    own = f"of user {address.user}"
    short = any(0 <= allowed < needed for what, (_, allowed) in limits.items() if what != own)
    return Check("connections", None if short else True, found, mend if short else "")


def _clocks(api: Management, address: BrokerUrl) -> Check:
    """Compare the broker's clock with ours: deadlines and tokens go by both."""
    before = time.time()
    theirs = api.time()
    ours = (before + time.time()) / 2
    if theirs is None:
        return Check("clocks", None, "the management API does not tell the time")
    # It tells the second that has begun: on average half a second ago.
    apart = theirs + 0.5 - ours
    if abs(apart) <= _CLOCKS_APART:
        return Check("clocks", True, f"the broker's and ours agree within {_CLOCKS_APART:.0f} s")
    way = "ahead of" if apart > 0 else "behind"
    return Check(
        "clocks",
        False,
        f"the broker's clock is {abs(apart):.0f} s {way} ours",
        "have both set by NTP: timedatectl set-ntp true, or chrony",
    )


def certificate(address: BrokerUrl, *, timeout: float = 5.0) -> Check:
    """Say until when the certificate of a broker that is reached by TLS is valid."""
    name = "certificate"
    context = tls_context(address)
    assert context is not None
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=timeout) as plain,
            context.wrap_socket(plain, server_hostname=server_name_of(address)) as wrapped,
        ):
            shown = wrapped.getpeercert() or {}
    except OSError as error:
        return Check(name, None, f"not known: {error}")
    ends = shown.get("notAfter")
    if not isinstance(ends, str):
        return Check(
            name, None, "not verified, and so not known", "leave out verify= from the broker's URL"
        )
    days = (ssl.cert_time_to_seconds(ends) - time.time()) / 86400
    if days < _EXPIRES_SOON:
        mend = "give the broker a new one (flmq certs server, or your authority's), and restart it"
        return Check(name, False, f"the broker's ends in {days:.1f} days, {ends}", mend)
    return Check(name, True, f"the broker's is valid for {days:.0f} days, until {ends}")


def _limit(api: Management, path: str) -> int:
    """Return a limit on connections; -1: there is none."""
    for each in _listed(api.call("GET", path)):
        limit = (each.get("value") or {}).get("max-connections")
        if isinstance(limit, int):
            return limit
    return -1


def _listed(answer: object) -> list[Mapping[str, Any]]:
    return (
        [each for each in answer if isinstance(each, Mapping)] if isinstance(answer, list) else []
    )


def _amount(of: Mapping[str, Any], name: str) -> float:
    value = of.get(name)
    return value if isinstance(value, int | float) else 0
