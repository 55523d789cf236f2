"""What tests of federations need: a broker in memory that fails on demand, and a clock to move."""

from __future__ import annotations

from flmq.transport.memory import Clock, ManualClock, MemoryBroker, MemoryTransport

__all__ = ["Clock", "ManualClock", "MemoryBroker", "MemoryTransport"]
