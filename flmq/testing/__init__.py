"""Tools for tests of federations: an in-memory broker that fails on demand, and a manual clock."""

from __future__ import annotations

from flmq.transport.memory import Clock, ManualClock, MemoryBroker, MemoryTransport
from flmq.transport.retry import fast_retries

__all__ = ["Clock", "ManualClock", "MemoryBroker", "MemoryTransport", "fast_retries"]
