"""Federated XGBoost: models are trees as bytes, which are collected or handed on, not averaged."""

from __future__ import annotations

from flmq.server.strategy.trees.fedxgb_bagging import FedXgbBagging
from flmq.server.strategy.trees.fedxgb_cyclic import FedXgbCyclic
from flmq.server.strategy.trees.fedxgb_nn_avg import FedXgbNnAvg

__all__ = ["FedXgbBagging", "FedXgbCyclic", "FedXgbNnAvg"]
