"""What a process is."""

from __future__ import annotations

from enum import Enum

__all__ = ["Role"]


class Role(Enum):
    """What a process is."""

    SERVER = "server"
    WORKER = "worker"
    AGGREGATOR = "aggregator"
