"""The transport: one small interface to a message broker, with two implementations.

The interface is in `flmq.transport.base`, the topology in `flmq.transport.topology`; both are
re-exported here. Implementations: `flmq.transport.memory` and `flmq.transport.rabbitmq`.
"""

from __future__ import annotations

from flmq.common.urls import BrokerUrl
from flmq.transport.base import (
    STREAM_OFFSET_HEADER,
    Address,
    ConnectionEvent,
    ConnectionState,
    Consumer,
    Delivery,
    Message,
    Publisher,
    PublishOutcome,
    QueueInfo,
    StateListener,
    StreamOffset,
    Transport,
    offset_of,
)
from flmq.transport.outages import OutageReporter
from flmq.transport.regional import (
    AGGREGATOR,
    aggregator_key,
    aggregator_lock,
    aggregator_lock_topology,
    aggregator_queue,
    aggregator_topology,
    partial_key,
    partials_queue,
    regional_queue,
    regional_uploads_queue,
)
from flmq.transport.topology import (
    DEAD,
    DEFAULT_SITE,
    MODELS,
    PARTIALS,
    PRESENCE,
    REGIONAL,
    REGIONAL_UPLOADS,
    REPLIES,
    STREAM_MAX_BYTES,
    TASKS,
    TASKS_LOCAL,
    UPLOADS,
    Binding,
    Exchange,
    ExchangeType,
    Queue,
    QueueType,
    Topology,
    begun_key,
    client_in_key,
    client_of_key,
    client_queue,
    client_topology,
    everybody_key,
    federation_topology,
    job_topology,
    lock_queue,
    models_topology,
    own_model_key,
    own_models_queue,
    own_models_topology,
    presence_key,
    presence_queue,
    replies_queue,
    reply_key,
    size_key,
    task_key,
    union,
    uploads_queue,
)

__all__ = [
    "AGGREGATOR",
    "DEAD",
    "DEFAULT_SITE",
    "MODELS",
    "PARTIALS",
    "PRESENCE",
    "REGIONAL",
    "REGIONAL_UPLOADS",
    "REPLIES",
    "STREAM_MAX_BYTES",
    "STREAM_OFFSET_HEADER",
    "TASKS",
    "TASKS_LOCAL",
    "UPLOADS",
    "Address",
    "Binding",
    "ConnectionEvent",
    "ConnectionState",
    "Consumer",
    "Delivery",
    "Exchange",
    "ExchangeType",
    "Message",
    "PublishOutcome",
    "Publisher",
    "Queue",
    "QueueInfo",
    "QueueType",
    "StateListener",
    "StreamOffset",
    "Topology",
    "Transport",
    "aggregator_key",
    "aggregator_lock",
    "aggregator_lock_topology",
    "aggregator_queue",
    "aggregator_topology",
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
    "offset_of",
    "open_transport",
    "own_model_key",
    "own_models_queue",
    "own_models_topology",
    "partial_key",
    "partials_queue",
    "presence_key",
    "presence_queue",
    "regional_queue",
    "regional_uploads_queue",
    "replies_queue",
    "reply_key",
    "size_key",
    "task_key",
    "union",
    "uploads_queue",
]


def open_transport(
    url: str | BrokerUrl, *, name: str = "", listener: StateListener | None = None
) -> Transport:
    """Connect to the broker at ``url``, ``amqp://`` or ``amqps://``.

    RabbitMQ's tools show ``name``; ``listener`` is called when the broker is lost, when it is back,
    and once a minute in between, whatever the number of connections.

    Raises:
        InvalidBrokerUrl: the URL cannot be used.
        BrokerUnavailable: the broker does not answer.
        BrokerAccessRefused: wrong credentials or virtual host.
    """
    from flmq.transport.rabbitmq import RabbitMQTransport  # import pika only when needed

    told = None if listener is None else OutageReporter(listener)
    return RabbitMQTransport(url, name=name, listener=told)
