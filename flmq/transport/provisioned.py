"""What stands on a provisioned virtual host before any process comes, as data.

There credentials are each client's own. So clients, aggregators and servers may declare next to
nothing, and what they would declare elsewhere is made beforehand, by `flmq provision`. The last
thing that it makes is the exchange `PROVISIONED`, by which every process knows where it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from flmq.common.errors import BrokerRefusal
from flmq.transport.base import Transport
from flmq.transport.regional import aggregator_topology
from flmq.transport.topology import (
    DEAD,
    REGIONAL,
    TASKS,
    TASKS_LOCAL,
    Binding,
    Exchange,
    ExchangeType,
    Queue,
    Topology,
    client_queue,
    client_topology,
    everybody_key,
    federation_topology,
    models_topology,
    task_key,
)

__all__ = [
    "EVERYBODY",
    "PROVISIONED",
    "NotProvisioned",
    "is_provisioned",
    "provisioned_aggregator",
    "provisioned_client",
    "provisioned_mark",
    "provisioned_site",
    "provisioned_ways",
]

PROVISIONED = "flmq.provisioned"
"""An exchange that nobody publishes to: where it is, `flmq provision` has made the rest."""
EVERYBODY = "flmq.tasks.everybody"
"""An exchange to all clients of a site. It is apart from that of single clients, to which clients'
notes lead: so no header of a client reaches everybody at once."""


class NotProvisioned(BrokerRefusal):
    """What a process needs is not on a provisioned virtual host, or its user may not use it."""

    def __init__(self, what: str, user: str, reason: str) -> None:
        """Name ``what`` is missing, the ``user`` that asked, and the broker's ``reason``."""
        self.user = user
        super().__init__(
            f"{what} cannot be used by user {user!r} ({reason}). This virtual host is provisioned: "
            "nothing is made here by those who use it. Add it to the federation's file, or log in "
            "as the user that the file gives it to, and run: flmq provision --file federation.toml"
        )


def is_provisioned(transport: Transport) -> bool:
    """Return whether the virtual host is provisioned: credentials are then each client's own.

    Raises:
        BrokerError: the broker refuses or cannot be reached.
    """
    return transport.has_exchange(PROVISIONED)


def provisioned_site(site: str) -> Topology:
    """Return what all clients of a site and all jobs share, with the stream of models."""
    return federation_topology(site) + models_topology() + provisioned_ways(site)


def provisioned_ways(site: str) -> Topology:
    """Return the ways to clients' queues: from servers to everybody, from clients to themselves.

    Clients' notes take the way of their tasks, by one binding for all clients of a site. Their keys
    have two words, and those of replies, which are an aggregator's, three.
    """
    return Topology(
        exchanges=(Exchange(EVERYBODY, ExchangeType.FANOUT, internal=True),),
        bindings=(
            Binding(TASKS, EVERYBODY, everybody_key(site), to_exchange=True),
            Binding(REGIONAL, TASKS_LOCAL, f"{site}.*", to_exchange=True),
        ),
    )


def provisioned_client(client_id: str, site: str) -> Topology:
    """Return a client's queue, of its tasks, its notes and the models that are for it alone.

    It stays until `flmq provision` removes it. What its reader rejects goes to ``flmq.dead`` by
    the queue itself, since a client may not write there.
    """
    name = client_queue(client_id)
    bindings = (Binding(TASKS_LOCAL, name, task_key(site, client_id)), Binding(EVERYBODY, name, ""))
    return _standing(replace(client_topology(client_id, site), bindings=bindings))


def provisioned_aggregator(site: str, below: Iterable[str] = ()) -> Topology:
    """Return the queues of a site's aggregator, which has sites ``below``; not its lock."""
    return _standing(aggregator_topology(site, tuple(below)))


def provisioned_mark() -> Topology:
    """Return what says that the virtual host is provisioned: to be made last."""
    return Topology(exchanges=(Exchange(PROVISIONED, ExchangeType.FANOUT, internal=True),))


def _standing(topology: Topology) -> Topology:
    """Return queues that do not expire, and dead-letter what is rejected."""
    return replace(topology, queues=tuple(_stands(queue) for queue in topology.queues))


def _stands(queue: Queue) -> Queue:
    kept = {name: value for name, value in queue.arguments.items() if name != "x-expires"}
    return replace(queue, arguments={**kept, "x-dead-letter-exchange": DEAD})
