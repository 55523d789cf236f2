"""The clock that a task's deadline is of, told on a machine whose own may be wrong."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.wire import Task

__all__ = ["server_clock"]


def server_clock(task: Task, arrived: float | None) -> Callable[[], float]:
    """A clock to hold a task's deadline against, though ours may be wrong by hours.

    The server's clock was at least at the phase's opening when the task came. Where ours is ahead
    of what that gives, it is not believed: a task is rather done in vain than wrongly given up.
    """
    if arrived is None or task.deadline_unix_ms is None or task.timeout_seconds is None:
        return time.time
    opened = task.deadline_unix_ms / 1000 - task.timeout_seconds
    return lambda: min(time.time(), opened + time.monotonic() - arrived)
