"""Rigs whose broker is hostile."""

from __future__ import annotations

from flmq.common.urls import parse_broker_url
from tests.security.hostile import HostileBroker, HostileMemoryBroker, HostileRabbitMQ
from tests.transport.rigs import MemoryRig, RabbitMQRig

__all__ = ["HostileMemoryRig", "HostileRabbitMQRig", "HostileRig"]


class HostileMemoryRig(MemoryRig):
    """On a hostile memory broker."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = HostileMemoryBroker()
        self.hostile: HostileBroker
        self.hostile = self.broker = self.memory


class HostileRabbitMQRig(RabbitMQRig):
    """On a real RabbitMQ, of which somebody hostile is the administrator."""

    def __init__(self, url: str) -> None:
        self.rabbitmq = HostileRabbitMQ(parse_broker_url(url))
        self.hostile: HostileBroker = self.rabbitmq
        super().__init__(self.rabbitmq.url)

    def close(self) -> None:
        super().close()
        self.rabbitmq.__exit__()


HostileRig = HostileMemoryRig | HostileRabbitMQRig
