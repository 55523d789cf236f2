"""An in-process message broker with RabbitMQ's semantics, and faults on demand."""

from __future__ import annotations

from flmq.transport.memory.broker import DEFAULT_MAX_MESSAGE_SIZE, MemoryBroker
from flmq.transport.memory.clock import Clock, ManualClock
from flmq.transport.memory.transport import MemoryTransport

__all__ = ["DEFAULT_MAX_MESSAGE_SIZE", "Clock", "ManualClock", "MemoryBroker", "MemoryTransport"]
