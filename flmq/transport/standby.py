"""Standing by for what one connection at a time can have on the broker."""

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
    """Return what ``take`` returns, calling it until nobody else has what it takes. Blocks.

    ``locked`` is called once, when somebody else has it, and raises to give up at once. ``wait``
    is called with the seconds until the next try, and raises to stop.
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
