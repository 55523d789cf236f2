"""What test programs train: nothing, but with bits that show a lost order or turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from flmq.common import NDArrays

__all__ = ["moved", "wait_until"]


def moved(model: NDArrays, seed: Sequence[int], scale: float = 1.0) -> NDArrays:
    """``model`` a little smaller, and moved by noise of ``seed``: all in float32."""
    rng = np.random.default_rng(seed)
    return [
        np.asarray(p * np.float32(0.9), p.dtype)
        + np.float32(scale) * rng.standard_normal(p.shape, dtype=np.float32)
        for p in model
    ]


def wait_until(done: Callable[[], bool], at_most: float) -> None:
    """Hold a training until ``done``, but for no longer than ``at_most`` seconds."""
    deadline = time.monotonic() + at_most
    while not done() and time.monotonic() < deadline:
        time.sleep(0.02)
