"""Polling: the only way to learn what another program has done."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["poll_until"]


def poll_until(
    done: Callable[[], bool],
    timeout: float,
    *,
    every: float = 0.05,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], object] = time.sleep,
) -> bool:
    """Call ``done`` every ``every`` seconds until it is true or ``timeout`` passes; return which.

    It is called at least once. Its exceptions pass through.
    """
    deadline = clock() + timeout
    while not done():
        if clock() >= deadline:
            return False
        pause(every)
    return True
