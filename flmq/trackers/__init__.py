"""Observers that write a run where other tools show it: TensorBoard, MLflow, Weights & Biases.

Each is in a module of its own, and needs the extra of that name.
"""

from __future__ import annotations

from flmq.trackers.errors import TrackerNotInstalled

__all__ = ["TrackerNotInstalled"]
