"""A worker's tasks that wait for a thread or are being done, with their times of arrival."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from queue import SimpleQueue

from flmq.client.clocks import server_clock
from flmq.wire import Task

__all__ = ["Backlog"]


class Backlog:
    """A queue of tasks that also remembers those taken from it. Thread-safe."""

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start empty; ``clock`` gives monotonic seconds, ``unix_clock`` Unix seconds."""
        self.clock = clock
        self.stopping = threading.Event()
        """Set when no more tasks are to be done."""
        self._unix_clock = unix_clock
        self._waiting: SimpleQueue[Task | None] = SimpleQueue()
        self._arrived: dict[str, float | None] = {}
        """Arrival of tasks that wait, are trained on, or whose reply is being sent, by id."""

    def put(self, task: Task, arrived: float | None = None) -> None:
        """Queue a task for the next free thread.

        ``arrived`` is when it came, by `clock`; None if before our start.
        """
        self._arrived[task.task_id] = arrived
        self._waiting.put(task)

    def take(self) -> Task | None:
        """Return the next task, or None if this thread is to end. Blocks."""
        task = self._waiting.get()
        return None if self.stopping.is_set() else task

    def done(self, task: Task) -> None:
        """Forget a task that was taken."""
        self._arrived.pop(task.task_id, None)

    def __contains__(self, task_id: str) -> bool:
        """Return whether a task waits or is being done."""
        return task_id in self._arrived

    def server_clock(self, task: Task) -> Callable[[], float]:
        """Return the clock to compare the deadline of a taken task with."""
        return server_clock(task, self._arrived[task.task_id], self.clock, self._unix_clock)

    def stop(self, threads: int) -> None:
        """Make each of ``threads`` threads end after its current task. Idempotent."""
        self.stopping.set()
        for _ in range(threads):
            self._waiting.put(None)
