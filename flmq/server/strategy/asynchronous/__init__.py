"""Strategies without rounds: clients are kept busy, and the model steps after every few updates."""

from __future__ import annotations

from flmq.server.strategy.asynchronous.asynchronous import Asynchronous
from flmq.server.strategy.asynchronous.fedasync import FedAsync
from flmq.server.strategy.asynchronous.fedbuff import FedBuff

__all__ = ["Asynchronous", "FedAsync", "FedBuff"]
