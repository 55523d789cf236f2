"""The topology on the broker: exchanges, queues and bindings, as data (DESIGN: "On the broker").

One virtual host is one federation. Names are fixed; a site is a datacenter, and ``main`` if there
is only one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

__all__ = [
    "AMOUNTS",
    "DEAD",
    "DEFAULT_SITE",
    "JOB_QUEUE_EXPIRES",
    "MODELS",
    "PARTIALS",
    "PRESENCE",
    "REGIONAL",
    "REGIONAL_UPLOADS",
    "REPLIES",
    "STREAM_MAX_BYTES",
    "TASKS",
    "TASKS_LOCAL",
    "UPLOADS",
    "Binding",
    "Exchange",
    "ExchangeType",
    "Queue",
    "QueueType",
    "Topology",
    "begun_key",
    "client_in_key",
    "client_of_key",
    "client_queue",
    "client_topology",
    "everybody_key",
    "federation_topology",
    "job_topology",
    "lock_queue",
    "models_topology",
    "own_model_key",
    "own_models_queue",
    "own_models_topology",
    "presence_key",
    "presence_queue",
    "replies_queue",
    "reply_key",
    "size_key",
    "task_key",
    "union",
    "uploads_queue",
]

DEFAULT_SITE = "main"

TASKS = "flmq.tasks"
TASKS_LOCAL = "flmq.tasks.local"
REPLIES = "flmq.replies"
UPLOADS = "flmq.uploads"
PRESENCE = "flmq.presence"
MODELS = "flmq.models"
DEAD = "flmq.dead"
REGIONAL = "flmq.regional"
"""Replies to a site's aggregator; like the next, the site's own business and never federated."""
REGIONAL_UPLOADS = "flmq.regional.uploads"
PARTIALS = "flmq.partials"
"""Partial sums to an aggregator above, and their chunks; federated upwards as replies are."""

AMOUNTS = frozenset(
    {
        "x-delivery-limit",
        "x-expires",
        "x-max-age",
        "x-max-length",
        "x-max-length-bytes",
        "x-message-ttl",
        "x-stream-max-segment-size-bytes",
    }
)
"""Arguments that only limit an amount or a time: a queue with other values is used as it is."""

_EVERYBODY = "!all"
"""Routing key word for all clients of a site; '!' cannot occur in a client id."""

_DAY = 24 * 3600
_CLIENT_QUEUE_EXPIRES = 7 * _DAY
JOB_QUEUE_EXPIRES = 7 * _DAY
"""Seconds after which the queues of a job that nobody serves are deleted."""
_OWN_MODELS_EXPIRE = 3600
_PRESENCE_TTL = 60
_PRESENCE_MAX_BYTES = 64 * 1024 * 1024
"""Of 100,000 heartbeats some 20 MiB; of hellos of a megabyte, whoever sends them, no more."""
STREAM_MAX_BYTES = 8 * 1024**3
"""Minimum that the stream of models keeps: it drops whole segments beyond that."""
_STREAM_MAX_AGE = "2h"
_STREAM_SEGMENT_BYTES = 64 * 1024**2
_DEAD_MAX_BYTES = 256 * 1024 * 1024


class ExchangeType(Enum):
    """How an exchange routes (AMQP 0-9-1)."""

    DIRECT = "direct"
    FANOUT = "fanout"
    TOPIC = "topic"


class QueueType(Enum):
    """RabbitMQ's queue types; always given, as a virtual host may have another default."""

    CLASSIC = "classic"
    QUORUM = "quorum"
    STREAM = "stream"


@dataclass(frozen=True, slots=True)
class Exchange:
    """A durable exchange."""

    name: str
    type: ExchangeType
    internal: bool = False
    """Whether nobody may publish to it."""


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue and the arguments with which it is declared."""

    name: str
    type: QueueType = QueueType.CLASSIC
    durable: bool = True
    exclusive: bool = False
    """Belongs to the declaring transport, and is deleted with it."""
    arguments: Mapping[str, bool | int | str] = field(default_factory=dict)
    """RabbitMQ's ``x-`` arguments other than ``x-queue-type``."""


@dataclass(frozen=True, slots=True)
class Binding:
    """Route messages of exchange ``source`` with ``routing_key`` to ``destination``."""

    source: str
    destination: str
    routing_key: str
    to_exchange: bool = False
    """Whether the destination is an exchange (RabbitMQ, exchange-to-exchange bindings)."""


@dataclass(frozen=True, slots=True)
class Topology:
    """What to declare, in this order."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    def __add__(self, other: Topology) -> Topology:
        """Return the union of both."""
        return Topology(
            self.exchanges + other.exchanges,
            self.queues + other.queues,
            self.bindings + other.bindings,
        )


def union(topologies: Iterable[Topology]) -> Topology:
    """Return the union of many, each copied once."""
    each = tuple(topologies)
    return Topology(
        tuple(exchange for one in each for exchange in one.exchanges),
        tuple(queue for one in each for queue in one.queues),
        tuple(binding for one in each for binding in one.bindings),
    )


def client_queue(client_id: str) -> str:
    """Return the name of the queue from which a client receives tasks."""
    return f"flmq.client.{client_id}"


def own_models_queue(client_id: str) -> str:
    """Return the name of the queue of models for one client alone, in chunks."""
    return f"flmq.models.{client_id}"


def replies_queue(job: str) -> str:
    """Return the name of the queue of a job's replies."""
    return f"flmq.replies.{job}"


def uploads_queue(job: str) -> str:
    """Return the name of the queue of chunks of a job's large replies."""
    return f"flmq.uploads.{job}"


def presence_queue(job: str) -> str:
    """Return the name of the queue of hellos to a job."""
    return f"flmq.presence.{job}"


def lock_queue(job: str) -> str:
    """Return the name of the exclusive queue whose holder is the job's server; nobody reads it."""
    return f"flmq.lock.{job}"


def client_in_key(client_id: str) -> str:
    """Return the one word that a client is in routing keys: each dot of its id is a ``/``.

    A dot would begin another word of the key. No client id contains ``/``.
    """
    return client_id.replace(".", "/")


def client_of_key(routing_key: str) -> str | None:
    """Return the client's id, or ``!`` and what follows, in a key ``<site>.<client>...``.

    Everything in a key that a peer wrote is its own choice: None if there is no second word.
    """
    words = routing_key.split(".", 2)
    return words[1].replace("/", ".") if len(words) > 1 and words[1] else None


def task_key(site: str, client_id: str) -> str:
    """Return the routing key of one client's tasks on ``flmq.tasks``."""
    return f"{site}.{client_in_key(client_id)}"


def own_model_key(site: str, client_id: str) -> str:
    """Return the routing key of one client's own models on ``flmq.tasks``."""
    return f"{site}.{client_in_key(client_id)}.model"


def everybody_key(site: str) -> str:
    """Return the routing key of all clients of a site on ``flmq.tasks``."""
    return f"{site}.{_EVERYBODY}"


def reply_key(site: str, client_id: str, job: str) -> str:
    """Return the routing key on ``flmq.replies`` and ``flmq.uploads``."""
    return f"{site}.{client_in_key(client_id)}.{job}"


def presence_key(site: str, client_id: str) -> str:
    """Return the routing key on ``flmq.presence``."""
    return f"{site}.{client_in_key(client_id)}"


def begun_key(site: str, client_id: str) -> str:
    """Return the routing key on ``flmq.regional`` of a client's notes to itself.

    It has a word less than the keys of replies, which an aggregator reads by ``<site>.*.*``.
    """
    return f"{site}.{client_in_key(client_id)}"


def size_key(site: str, client_id: str) -> str:
    """Return the routing key on ``flmq.uploads`` of a message that asks how large one may be.

    Nobody is bound by it: no job has such a name.
    """
    return reply_key(site, client_id, "!size")


def federation_topology(site: str = DEFAULT_SITE) -> Topology:
    """Return the fixed exchanges and the dead-letter queue, which every process declares."""
    return Topology(
        exchanges=(
            Exchange(TASKS, ExchangeType.TOPIC),
            Exchange(TASKS_LOCAL, ExchangeType.DIRECT),
            Exchange(REPLIES, ExchangeType.TOPIC),
            Exchange(UPLOADS, ExchangeType.TOPIC),
            Exchange(PRESENCE, ExchangeType.TOPIC),
            Exchange(MODELS, ExchangeType.TOPIC),
            Exchange(DEAD, ExchangeType.FANOUT),
            Exchange(REGIONAL, ExchangeType.TOPIC),
            Exchange(REGIONAL_UPLOADS, ExchangeType.TOPIC),
            Exchange(PARTIALS, ExchangeType.TOPIC),
        ),
        queues=(
            Queue(
                DEAD,
                arguments={"x-max-length-bytes": _DEAD_MAX_BYTES, "x-overflow": "drop-head"},
            ),
        ),
        bindings=(
            Binding(TASKS, TASKS_LOCAL, f"{site}.#", to_exchange=True),
            Binding(DEAD, DEAD, ""),
        ),
    )


def models_topology() -> Topology:
    """Return the stream of models, declared when a model first needs it (docs/decisions.md)."""
    stream = Queue(
        MODELS,
        QueueType.STREAM,
        arguments={
            "x-max-length-bytes": STREAM_MAX_BYTES,
            "x-max-age": _STREAM_MAX_AGE,
            "x-stream-max-segment-size-bytes": _STREAM_SEGMENT_BYTES,
        },
    )
    return Topology(queues=(stream,), bindings=(Binding(MODELS, MODELS, "#"),))


def client_topology(client_id: str, site: str = DEFAULT_SITE) -> Topology:
    """Return one client's queue: durable, deleted a week after the client was last seen."""
    name = client_queue(client_id)
    return Topology(
        queues=(Queue(name, arguments={"x-expires": _CLIENT_QUEUE_EXPIRES * 1000}),),
        bindings=(
            Binding(TASKS_LOCAL, name, task_key(site, client_id)),
            Binding(TASKS_LOCAL, name, everybody_key(site)),
        ),
    )


def own_models_topology(client_id: str, site: str = DEFAULT_SITE) -> Topology:
    """Return one client's queue of its own models, declared on request and deleted when unused."""
    name = own_models_queue(client_id)
    return Topology(
        queues=(Queue(name, arguments={"x-expires": _OWN_MODELS_EXPIRE * 1000}),),
        bindings=(Binding(TASKS_LOCAL, name, own_model_key(site, client_id)),),
    )


def job_topology(job: str) -> Topology:
    """Return a job's lock, its presence queue, and the queues of replies and of their chunks.

    The lock is an exclusive queue of its own, rather than an exclusive presence queue, as RabbitMQ
    lets only the declaring connection consume from an exclusive one.
    """
    return Topology(
        queues=(
            Queue(lock_queue(job), durable=False, exclusive=True),
            Queue(
                presence_queue(job),
                arguments={
                    "x-message-ttl": _PRESENCE_TTL * 1000,
                    "x-max-length": 100_000,
                    "x-max-length-bytes": _PRESENCE_MAX_BYTES,
                    "x-overflow": "drop-head",
                    "x-expires": _DAY * 1000,
                },
            ),
            # Chunks are large, and their worker keeps them until the server has them all: they need
            # no replicas, whose writing and syncing would cost as much as everything else.
            Queue(
                uploads_queue(job),
                arguments={
                    "x-single-active-consumer": True,
                    "x-dead-letter-exchange": DEAD,
                    "x-expires": JOB_QUEUE_EXPIRES * 1000,
                },
            ),
            Queue(
                replies_queue(job),
                QueueType.QUORUM,
                arguments={
                    "x-single-active-consumer": True,
                    # Never lose a reply to the default limit of RabbitMQ 4 (20 returns).
                    "x-delivery-limit": 1_000_000,
                    "x-dead-letter-exchange": DEAD,
                    "x-expires": JOB_QUEUE_EXPIRES * 1000,
                },
            ),
        ),
        bindings=(
            Binding(REPLIES, replies_queue(job), f"*.*.{job}"),
            Binding(UPLOADS, uploads_queue(job), f"*.*.{job}"),
            Binding(PRESENCE, presence_queue(job), "#"),
        ),
    )
