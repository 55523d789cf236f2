"""The transport over RabbitMQ with pika: the only package that moves messages with pika."""

from __future__ import annotations

from flmq.transport.rabbitmq.transport import RabbitMQTransport

__all__ = ["RabbitMQTransport"]
