"""flmq: federated learning over RabbitMQ, with Flower's programming model."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["client", "common", "server", "simulation"]
__version__ = "0.1.0"


def __getattr__(name: str) -> ModuleType:
    """Import a subpackage on first use: ``import flmq as fl; fl.server.start_server``."""
    if name in __all__:
        return import_module(f"flmq.{name}")
    raise AttributeError(f"module 'flmq' has no attribute {name!r}")
