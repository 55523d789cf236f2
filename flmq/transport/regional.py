"""The queues of a site's aggregator, as data; their exchanges are in `flmq.transport.topology`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flmq.transport.topology import (
    DEAD,
    JOB_QUEUE_EXPIRES,
    PARTIALS,
    PRESENCE,
    REGIONAL,
    REGIONAL_UPLOADS,
    TASKS_LOCAL,
    Binding,
    Queue,
    QueueType,
    Topology,
    everybody_key,
)

__all__ = [
    "AGGREGATOR",
    "aggregator_key",
    "aggregator_lock",
    "aggregator_lock_topology",
    "aggregator_queue",
    "aggregator_topology",
    "partial_key",
    "partials_queue",
    "regional_queue",
    "regional_uploads_queue",
]

AGGREGATOR = "!aggregator"
"""Where a client's id would stand in a routing key, for the aggregator of a site."""


def aggregator_queue(site: str) -> str:
    """Return the name of the queue from which a site's aggregator receives orders."""
    return f"flmq.aggregator.{site}"


def regional_queue(site: str) -> str:
    """Return the name of the queue of a site's replies to its aggregator."""
    return f"flmq.regional.{site}"


def regional_uploads_queue(site: str) -> str:
    """Return the name of the queue of chunks of a site's large replies to its aggregator."""
    return f"flmq.regional.uploads.{site}"


def partials_queue(site: str) -> str:
    """Return the name of the queue of partial sums from aggregators below that of ``site``."""
    return f"flmq.partials.{site}"


def aggregator_lock(site: str) -> str:
    """Return the name of the exclusive queue whose holder is the site's aggregator."""
    return f"flmq.lock.aggregator.{site}"


def aggregator_key(site: str) -> str:
    """Return the routing key on ``flmq.tasks`` and ``flmq.presence`` of a site's aggregator."""
    return f"{site}.{AGGREGATOR}"


def partial_key(above: str, site: str, job: str) -> str:
    """Return the routing key on ``flmq.partials`` from ``site`` to the aggregator ``above``."""
    return f"{above}.{site}.{job}"


def aggregator_lock_topology(site: str) -> Topology:
    """Return the lock of a site's aggregator, which lives as long as who declared it."""
    return Topology(queues=(Queue(aggregator_lock(site), durable=False, exclusive=True),))


def aggregator_topology(site: str, regions: Sequence[str] = ()) -> Topology:
    """Return the queues of a site's aggregator: orders, replies, their chunks.

    ``regions`` are the sites below, whose aggregators' partial sums and reports come here. Queues
    are deleted a week after an aggregator was last seen. Its lock is declared apart.
    """
    shared: Mapping[str, bool | int | str] = {
        "x-single-active-consumer": True,
        "x-dead-letter-exchange": DEAD,
        "x-expires": JOB_QUEUE_EXPIRES * 1000,
    }
    topology = Topology(
        queues=(
            Queue(aggregator_queue(site), arguments=shared),
            # As a job's queues, and in their order, for the same reasons.
            Queue(regional_uploads_queue(site), arguments=shared),
            Queue(
                regional_queue(site),
                QueueType.QUORUM,
                arguments={**shared, "x-delivery-limit": 1_000_000},
            ),
        ),
        bindings=(
            Binding(TASKS_LOCAL, aggregator_queue(site), aggregator_key(site)),
            Binding(TASKS_LOCAL, aggregator_queue(site), everybody_key(site)),
            Binding(REGIONAL_UPLOADS, regional_uploads_queue(site), f"{site}.*.*"),
            Binding(REGIONAL, regional_queue(site), f"{site}.*.*"),
        ),
    )
    if not regions:
        return topology
    return topology + Topology(
        queues=(Queue(partials_queue(site), arguments=shared),),
        bindings=(
            Binding(PARTIALS, partials_queue(site), f"{site}.*.*"),
            *(Binding(PRESENCE, aggregator_queue(site), aggregator_key(each)) for each in regions),
        ),
    )
