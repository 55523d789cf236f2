"""A worker's tasks that wait for a thread or are being done, and when each came."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from flmq.client.clocks import server_clock
from flmq.wire import Task

__all__ = ["Backlog"]


class Backlog:
    """A queue of tasks, which knows the ones that were taken from it as well. Thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` gives monotonic seconds, ``unix_clock`` this machine's seconds since 1970."""
        self.clock = clock
        self.stopping = threading.Event()
        """Set when nothing more is to be done."""
        self._unix_clock = unix_clock
        self._waiting: SimpleQueue[Task | None] = SimpleQueue()
        self._arrived: dict[str, float | None] = {}
        """Of those that wait, are trained on, or whose reply is being sent, by id."""

    def put(self, task: Task, arrived: float | None = None) -> None:
        """Have a task done by the next free thread.

        ``arrived`` is when it came, by `clock`; None: before our time.
        """
        self._arrived[task.task_id] = arrived
        self._waiting.put(task)

    def take(self) -> Task | None:
        """Return the next task; None: this thread is to end. Blocks."""
        task = self._waiting.get()
        return None if self.stopping.is_set() else task

    def done(self, task: Task) -> None:
        """Forget a task that was taken."""
        self._arrived.pop(task.task_id, None)

    def __contains__(self, task_id: str) -> bool:
        """Whether a task waits or is being done."""
        return task_id in self._arrived

    def server_clock(self, task: Task) -> Callable[[], float]:
        """Return the clock to compare the deadline of a task with that was taken."""
        return server_clock(task, self._arrived[task.task_id], self.clock, self._unix_clock)

    def stop(self, threads: int) -> None:
        """Let each of so many threads end after the task at hand. Idempotent."""
        self.stopping.set()
        for _ in range(threads):
            self._waiting.put(None)
