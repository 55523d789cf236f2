"""Stand by for something on the broker that one connection at a time can have."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flmq.common.errors import ResourceLocked

__all__ = ["TRY_EVERY", "stand_by"]

_Taken = TypeVar("_Taken")

TRY_EVERY = 1.0
"""Seconds between tries."""


def stand_by(
    take: Callable[[], _Taken],
    locked: Callable[[ResourceLocked], None],
    wait: Callable[[float], object],
) -> _Taken:
    """Call ``take`` until nobody else has what it takes; return its result. Blocks.

    ``locked`` is called once if somebody else has it, and raises to give up at once. ``wait`` is
    called with the seconds until the next try, and raises to stop.
    """
    waited = False
    while True:
        try:
            return take()
        except ResourceLocked as error:
            if not waited:
                locked(error)
                waited = True
            wait(TRY_EVERY)
