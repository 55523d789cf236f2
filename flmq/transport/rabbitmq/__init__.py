"""The transport over RabbitMQ, by pika. The one package that imports pika to move messages."""

from __future__ import annotations

from flmq.transport.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQTransport"]
