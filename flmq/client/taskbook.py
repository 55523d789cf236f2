"""The tasks a worker has: which wait, which is being done, which are done.

A broker delivers at least once: the same task may come again while it waits, while it is trained
on and after it is done. The book recognizes it by its id and keeps the newest letter, for only that
one can still be acked.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from enum import Enum

from flmq.post import Letter

__all__ = ["Admission", "TaskBook"]


class Admission(Enum):
    """What a task that comes is to the worker."""

    NEW = "new"
    AGAIN = "again"
    """Known, and not done: its newest letter was kept."""
    DONE = "done"
    """Its reply is with the broker already."""


class TaskBook:
    """Thread-safe."""

    def __init__(self, *, remember: int = 1024) -> None:
        """Remember the last ``remember`` tasks that were done."""
        self._remember = remember
        self._open: dict[str, Letter] = {}
        self._done: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def admit(self, task_id: str, letter: Letter) -> Admission:
        """Note a task that came with ``letter``."""
        with self._lock:
            if task_id in self._done:
                return Admission.DONE
            known = task_id in self._open
            self._open[task_id] = letter
            return Admission.AGAIN if known else Admission.NEW

    def finish(self, task_id: str) -> Letter:
        """Note that a task is done; its letter, to be acked, comes back."""
        with self._lock:
            self._done[task_id] = None
            if len(self._done) > self._remember:
                self._done.popitem(last=False)
            return self._open.pop(task_id)
