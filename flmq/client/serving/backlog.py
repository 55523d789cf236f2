"""A worker's tasks that wait for a thread or are being done, with their times of arrival."""

from __future__ import annotations

import heapq
import threading
import time
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue

from flmq.client.tasks.clocks import server_clock
from flmq.wire import Task

__all__ = ["Backlog"]


class _Watch:
    """Has a thread that waits look until when the next client rests."""


class Backlog:
    """A queue of tasks that also remembers those taken from it. Thread-safe.

    Each client has one task at a time with the threads: its others wait behind that one, in the
    order in which they came, and hold up no other client.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Start empty; ``clock`` gives monotonic seconds, ``unix_clock`` Unix seconds."""
        self.clock = clock
        self.stopping = threading.Event()
        """Set when no more tasks are to be done, and what is being done is to be given up."""
        self.draining = threading.Event()
        """Set when no more tasks are to be begun."""
        self._unix_clock = unix_clock
        self._waiting: SimpleQueue[Task | _Watch | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._arrived: dict[str, float | None] = {}
        """Arrival of tasks that wait, are trained on, or whose reply is being sent, by id."""
        self._at_work: dict[str, Task] = {}
        """Those of them that a thread has taken."""
        self._behind: dict[str, deque[Task]] = {}
        """For each client with a task that waits for a thread or is being done: its others."""
        self._drained_by = 0
        """The number of threads that end when all is drained."""
        self._resting: list[tuple[float, str]] = []
        """Clients that rest, and until when by `clock`; a heap."""

    def put(self, task: Task, arrived: float | None = None) -> None:
        """Queue a task for the next free thread, or behind its client's others.

        ``arrived`` is when it came, by `clock`; None if before our start.
        """
        with self._lock:
            self._arrived[task.task_id] = arrived
            behind = self._behind.get(task.client_id)
            if behind is not None:
                behind.append(task)
                return
            self._behind[task.client_id] = deque()
        self._waiting.put(task)

    def take(self) -> Task | None:
        """Return the next task, or None if this thread is to end. Blocks."""
        while True:
            left = self._wake()
            try:
                task = self._waiting.get(timeout=left)
            except Empty:
                continue
            if self.stopping.is_set() or task is None:
                return None
            if isinstance(task, Task):
                if self._resting:
                    self._waiting.put(_Watch())  # another thread that is free now looks on
                with self._lock:
                    self._at_work[task.task_id] = task
                return task

    def done(self, task: Task, *, rest: float = 0.0) -> None:
        """Forget a task that was taken; its client's next one follows after ``rest`` seconds."""
        with self._lock:
            self._arrived.pop(task.task_id, None)
            self._at_work.pop(task.task_id, None)
            if rest > 0 and not self.draining.is_set():
                # The thread that calls this takes its next task, and waits no longer than that.
                heapq.heappush(self._resting, (self.clock() + rest, task.client_id))
            else:
                self._next(task.client_id)

    def __len__(self) -> int:
        """Return how many tasks wait or are being done."""
        return len(self._arrived)

    @property
    def at_work(self) -> int:
        """How many tasks are being done."""
        return len(self._at_work)

    def __contains__(self, task_id: str) -> bool:
        """Return whether a task waits or is being done."""
        return task_id in self._arrived

    def tasks_at_work(self) -> list[Task]:
        """Return the tasks that threads have taken and not done yet."""
        with self._lock:
            return list(self._at_work.values())

    def server_clock(self, task: Task) -> Callable[[], float]:
        """Return the clock to compare the deadline of a taken task with."""
        return server_clock(task, self._arrived[task.task_id], self.clock, self._unix_clock)

    def stop(self, threads: int) -> None:
        """Make each of ``threads`` threads end after its current task. Idempotent."""
        self.stopping.set()
        self._end(threads)

    def drain(self, threads: int) -> None:
        """Make each of ``threads`` threads end once they have come to all that waits by now.

        That is also what waits behind a client's task at work, and nobody rests any more. Whoever
        takes a task asks `draining` whether it is to be begun: only finished ones are sent.
        Idempotent.
        """
        with self._lock:
            self._drained_by = threads
            self.draining.set()
            while self._resting:
                self._next(heapq.heappop(self._resting)[1])
            self._end_if_drained()

    def _end_if_drained(self) -> None:
        """End the threads if there is nothing more to come to; under the lock."""
        if self.draining.is_set() and not self._behind:
            self._end(self._drained_by)

    def _end(self, threads: int) -> None:
        for _ in range(threads):
            self._waiting.put(None)

    def _wake(self) -> float | None:
        """Let clients go on whose rest is over; return the seconds until the next one's is."""
        with self._lock:
            now = self.clock()
            while self._resting and self._resting[0][0] <= now:
                self._next(heapq.heappop(self._resting)[1])
            return self._resting[0][0] - now if self._resting else None

    def _next(self, client_id: str) -> None:
        """Queue a client's next task; under the lock."""
        behind = self._behind[client_id]
        if behind:
            self._waiting.put(behind.popleft())
        else:
            del self._behind[client_id]
            self._end_if_drained()
