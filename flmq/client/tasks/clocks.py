"""Compare a task's deadline, given by the server's clock, with a clock that may be wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.wire import Task

__all__ = ["server_clock"]


def server_clock(
    task: Task,
    arrived: float | None,
    clock: Callable[[], float] = time.monotonic,
    unix_clock: Callable[[], float] = time.time,
) -> Callable[[], float]:
    """Return a clock to compare a task's deadline with, though ours may be wrong by hours.

    ``unix_clock`` is ours; the task arrived at ``arrived`` by ``clock``, or before our time.

    When the task arrived, the server's clock was at least at the phase's opening. If our clock is
    ahead of what that implies, it is not trusted: a task done in vain is better than one wrongly
    given up.
    """
    if arrived is None or task.deadline_unix_ms is None or task.timeout_seconds is None:
        return unix_clock
    opened = task.deadline_unix_ms / 1000 - task.timeout_seconds
    return lambda: min(unix_clock(), opened + clock() - arrived)
