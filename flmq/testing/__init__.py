"""What tests of federations need: a broker in memory that fails on demand, and a clock to move."""

from __future__ import annotations

from flmq.transport.memory import Clock, ManualClock, MemoryBroker, MemoryTransport
from flmq.transport.retry import fast_retries

__all__ = ["Clock", "ManualClock", "MemoryBroker", "MemoryTransport", "fast_retries"]
