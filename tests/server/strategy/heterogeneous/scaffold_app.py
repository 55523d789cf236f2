"""Clients of SCAFFOLD for real processes, and for threads: each has a target of its own."""

from __future__ import annotations

import numpy as np

from flmq.client import ClientContext
from flmq.client.learning import ScaffoldClient
from flmq.common import Config, Metrics, NDArrays

__all__ = ["client"]

ETA, STEPS = np.float32(0.1), 5


class Target(ScaffoldClient):
    """Goes towards its own numbers in float32, where each step rounds."""

    def __init__(self, context: ClientContext) -> None:
        super().__init__(context.state_dir)
        self.curve = np.float32(1 + sum(context.client_id.encode()) % 5)
        self.seed = list(context.client_id.encode())

    def train(
        self, parameters: NDArrays, correction: NDArrays, config: Config
    ) -> tuple[NDArrays, float, int, Metrics]:
        rng = np.random.default_rng(self.seed)
        targets = [rng.normal(size=each.shape).astype(each.dtype) for each in parameters]
        for _ in range(STEPS):
            for y, target, h in zip(parameters, targets, correction, strict=True):
                y -= ETA * (self.curve * (y - target) + h)
        return parameters, STEPS * float(ETA), 1, {}


def client(context: ClientContext) -> Target:
    """Make the client."""
    return Target(context)
