"""What a broker has at a moment, for people who look: findings, queues, connections.

Nothing is consumed or kept from being deleted: RabbitMQ takes a passive declaration for a use of
the queue, which would put off its ``x-expires``, so only queues are declared so that their caller
names; all others are known by the management API alone, whose reading is no use.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from flmq.broker.check import Check
from flmq.broker.doctor import check_broker
from flmq.broker.management import Management, management_of
from flmq.broker.probe import queue_depths
from flmq.common.errors import BrokerError
from flmq.common.urls import InvalidBrokerUrl, parse_broker_url

__all__ = ["ConnectionsOf", "Overview", "QueueDepth", "look_at_broker"]

_MOST = 200
_OF_FLMQ = "^flmq\\."
_COLUMNS = "name,messages_ready,messages_unacknowledged,consumers,message_bytes,type"


@dataclass(frozen=True, slots=True)
class QueueDepth:
    """A queue, and what waits in it."""

    name: str
    ready: int
    """Messages that wait to be taken."""
    unacked: int | None
    """Messages that are taken and not yet acknowledged; None: not known."""
    consumers: int
    size: int | None = None
    """Bytes of its messages; None: not known."""


@dataclass(frozen=True, slots=True)
class ConnectionsOf:
    """How many connections a user has in a state."""

    user: str
    state: str
    """As RabbitMQ names it: "running", "blocked", "flow"."""
    count: int


@dataclass(frozen=True, slots=True)
class Overview:
    """A broker at a moment."""

    shown_url: str
    """Without a password."""
    checks: Sequence[Check]
    queues: Sequence[QueueDepth] = ()
    """The deepest first, 200 at most; without a management API only those that were named."""
    queues_total: int | None = None
    """How many queues of flmq there are; None: not known."""
    connections: Sequence[ConnectionsOf] = ()
    management_problem: str = ""
    """Why the management API says nothing; empty: it does."""


def look_at_broker(
    url: str, names: Sequence[str], *, environ: Mapping[str, str] | None = None
) -> Overview:
    """Look at the broker at ``url`` within some seconds; never raises for what it finds.

    ``names``: queues whose depths are asked for over AMQP, where they are used anyway, or do not
    expire. The management API is where FLMQ_MANAGEMENT_URL says, or else beside the broker.
    """
    where = (os.environ if environ is None else environ).get("FLMQ_MANAGEMENT_URL")
    checks = tuple(check_broker(url, None, where))
    try:
        address = parse_broker_url(url)
    except InvalidBrokerUrl:
        return Overview("", checks)
    shown = str(address)
    if not any(check.name == "broker" and check.ok for check in checks):
        return Overview(shown, checks)
    named: list[QueueDepth] = []
    try:
        depths = queue_depths(address, names)
        named = [QueueDepth(name, ready, None, readers) for name, ready, readers in depths]
    except BrokerError:
        pass  # it has gone since: the next look says so
    if where is None and address.tls:
        problem = "it is not asked, as the way to it is not known to be encrypted"
        return Overview(shown, checks, named, management_problem=problem)
    try:
        api = management_of(address, where, timeout=3.0)
        queues, total = _queues(api, address.vhost)
        connections = _connections(api, address.vhost)
    except BrokerError as error:
        return Overview(shown, checks, named, management_problem=str(error))
    known = {queue.name for queue in queues}
    queues += [queue for queue in named if queue.name not in known]
    # RabbitMQ's statistics are some seconds old; a declaration tells the number of now.
    now = {queue.name: queue.ready for queue in named}
    fresh = [
        QueueDepth(
            queue.name,
            now.get(queue.name, queue.ready),
            queue.unacked,
            queue.consumers,
            queue.size,
        )
        for queue in queues
    ]
    fresh.sort(key=lambda queue: (-queue.ready - (queue.unacked or 0), queue.name))
    return Overview(shown, checks, fresh[:_MOST], max(total, len(fresh)), connections)


def _queues(api: Management, vhost: str) -> tuple[list[QueueDepth], int]:
    """Return the deepest queues of flmq, and how many there are."""
    query = urlencode(
        {
            "name": _OF_FLMQ,
            "use_regex": "true",
            "columns": _COLUMNS,
            "sort": "messages",
            "sort_reverse": "true",
            "page": 1,
            "page_size": _MOST,
        }
    )
    answer = api.call("GET", f"/api/queues/{quote(vhost, safe='')}?{query}")
    found = answer if isinstance(answer, Mapping) else {}
    items = [each for each in found.get("items") or () if isinstance(each, Mapping)]
    queues = [
        QueueDepth(
            str(each.get("name")),
            _count(each, "messages_ready") or 0,
            _count(each, "messages_unacknowledged"),
            _count(each, "consumers") or 0,
            _count(each, "message_bytes"),
        )
        for each in items
    ]
    return queues, _count(found, "filtered_count") or len(queues)


def _connections(api: Management, vhost: str) -> list[ConnectionsOf]:
    columns = urlencode({"columns": "user,state"})
    answer = api.call("GET", f"/api/vhosts/{quote(vhost, safe='')}/connections?{columns}")
    there = answer if isinstance(answer, list) else []
    counts = Counter(
        (str(each.get("user", "")), str(each.get("state", "")))
        for each in there
        if isinstance(each, Mapping)
    )
    return [ConnectionsOf(user, state, count) for (user, state), count in counts.most_common(_MOST)]


def _count(of: Mapping[str, Any], name: str) -> int | None:
    value = of.get(name)
    return value if isinstance(value, int) and not isinstance(value, bool) else None
