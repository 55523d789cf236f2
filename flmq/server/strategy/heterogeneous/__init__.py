"""Strategies for clients whose data or speeds differ, which take a part in correcting for it."""

from __future__ import annotations

from flmq.server.strategy.heterogeneous.fednova import FedNova
from flmq.server.strategy.heterogeneous.fedprox import FedProx
from flmq.server.strategy.heterogeneous.scaffold import SCAFFOLD

__all__ = ["SCAFFOLD", "FedNova", "FedProx"]
