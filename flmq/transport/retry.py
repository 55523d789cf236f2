"""How flmq waits before retrying: one policy, exponential backoff with full jitter.

Jitter matters: thousands of workers reconnect after one broker restart. `fast_retries` is for
tests.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    wait_random,
    wait_random_exponential,
)

from flmq.common.errors import ResourceLocked

__all__ = ["Backoff", "Pace", "current_pace", "fast_retries", "while_locked"]


@dataclass(frozen=True, slots=True)
class Pace:
    """Parameters of the policy, in seconds."""

    first: float = 0.5
    """Upper bound of the first wait, doubled for each following one."""
    longest: float = 3.0
    """Upper bound of all waits: everybody is back soon; only one connection per process tries."""
    refused: float = 10.0
    """Between tries of what was refused: a password or a permission may be granted soon."""
    crowded: float = 30.0
    """The longest wait while the broker accepts no further connections."""
    lock: float = 3.0
    """How long a predecessor that was just killed may still hold a lock."""
    locked: float = 0.5
    """The longest wait for a lock: whoever holds it may be gone any moment."""
    healthy: float = 10.0
    """After a connection that held this long, backoff starts over with the first wait."""


_NORMAL = Pace()
_FAST = Pace(first=0.05, longest=0.3, refused=0.3, crowded=0.5, lock=0.5, healthy=0.5)
_pace = _NORMAL


def current_pace() -> Pace:
    """Return the parameters in force."""
    return _pace


@contextmanager
def fast_retries() -> Iterator[None]:
    """Retry within tenths of a second, in the whole process: for tests."""
    global _pace
    before, _pace = _pace, _FAST
    try:
        yield
    finally:
        _pace = before


class Backoff:
    """The waiting times of one series of tries."""

    def __init__(self) -> None:
        """Start a series."""
        self._state = RetryCallState(Retrying(), None, (), {})

    def reset(self) -> None:
        """Start over, after a success."""
        self._state.attempt_number = 1

    def next(self, longest: float | None = None) -> float:
        """Return the seconds until the next try, at most ``longest`` (None: the policy's limit)."""
        pace = current_pace()
        most = pace.longest if longest is None else longest
        wait = wait_random_exponential(multiplier=pace.first, max=most, min=pace.first / 5)
        seconds = wait(self._state)
        self._state.attempt_number += 1
        return seconds


def while_locked(stop: threading.Event) -> Retrying:
    """Retry while something is locked, for as long as a dead predecessor may hold it."""
    return Retrying(
        retry=retry_if_exception_type(ResourceLocked),
        stop=stop_after_delay(current_pace().lock),
        wait=wait_random(0.1, 0.3),
        sleep=sleep_using_event(stop),
        reraise=True,
    )
