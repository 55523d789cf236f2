"""Strategies for a model that serves all clients about equally."""

from __future__ import annotations

from flmq.server.strategy.fair.losses import NoLoss
from flmq.server.strategy.fair.qfedavg import QFedAvg

__all__ = ["NoLoss", "QFedAvg"]
