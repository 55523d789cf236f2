"""The tasks a worker has: which wait, which is being done, which are done, and their replies.

A broker delivers at least once: the same task may come again while it waits, while it is trained
on and after it is done. It is recognized by its id. A reply is kept until the server is known to
have it, to be sent again where it was lost on the way.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from flmq.post import Letter
from flmq.wire import Reply, Task

__all__ = ["AckPolicy", "Admission", "Tasks", "VolatileTasks"]


class AckPolicy(Enum):
    """When the broker may forget a task that a worker took."""

    ACCEPT = "accept"
    """Once it is in the worker's spool: training of any length and hours offline are ordinary, and
    nothing that was finished is trained again after a crash. Needs a folder that outlives the
    process."""
    RESULT = "result"
    """Once its reply is with the broker: a worker without a disk, whose task goes back to its queue
    when it dies. Training longer than the broker's delivery acknowledgement timeout brings the
    task again; it is recognized, and not begun twice."""


class Admission(Enum):
    """What a task that comes is to the worker."""

    NEW = "new"
    AGAIN = "again"
    """Known, and not done: what is newer about it (its deadline, its letter) was noted."""
    DONE = "done"
    """Done, and its reply is at hand: to be sent again."""
    SETTLED = "settled"
    """Done, and the server has its reply."""


class Tasks(Protocol):
    """Where a worker keeps its tasks. Thread-safe."""

    def admit(self, task: Task, letter: Letter) -> Admission:
        """Note a task that came with ``letter``; durable where the policy is ACCEPT."""

    def superseded(self) -> list[Letter]:
        """Letters whose place a later one of the same task took, to be acked."""

    def current(self, task_id: str) -> Task | None:
        """The newest form of a task that is not settled."""

    def finished(self, reply: Reply) -> Reply:
        """Keep the reply to a task; durable where the policy is ACCEPT."""

    def reply_of(self, task_id: str) -> Reply | None:
        """The reply that is kept, if there is one."""

    def published(self, task_id: str) -> Letter | None:
        """Note that the broker has the reply; the letter to ack now, where there is one."""

    def settle(self, task_id: str) -> Letter | None:
        """Let go of a task: the server has its reply, or nobody wants it; the letter to ack."""

    def of_job(self, job: str) -> list[str]:
        """Ids of the job's tasks that are not settled."""

    def left_over(self) -> list[Task]:
        """Tasks of an earlier process that are not settled, to be done or sent."""

    def age_of(self, task_id: str) -> float:
        """Seconds since a task came that an earlier process left: its newest form."""


@dataclass(slots=True)
class _Kept:
    task: Task
    letter: Letter | None
    reply: Reply | None = None


class VolatileTasks:
    """In memory, for `AckPolicy.RESULT`: an un-acked letter is what survives a crash."""

    def __init__(self, *, remember: int = 1024, replies: int = 1) -> None:
        """Remember the last ``remember`` settled tasks, and keep the last ``replies`` replies."""
        self._remember = remember
        self._replies = replies
        self._open: OrderedDict[str, _Kept] = OrderedDict()
        self._settled: OrderedDict[str, None] = OrderedDict()
        self._superseded: list[Letter] = []
        self._lock = threading.Lock()

    def admit(self, task: Task, letter: Letter) -> Admission:
        """Note a task, and the newest letter that brought it, for an older one may be stale."""
        with self._lock:
            if task.task_id in self._settled:
                return Admission.SETTLED
            known = self._open.get(task.task_id)
            if known is None:
                self._open[task.task_id] = _Kept(task, letter)
                return Admission.NEW
            if known.letter is not None:
                self._superseded.append(known.letter)
            known.task, known.letter = task, letter
            return Admission.AGAIN if known.reply is None else Admission.DONE

    def superseded(self) -> list[Letter]:
        """Letters whose place a later one took."""
        with self._lock:
            letters, self._superseded = self._superseded, []
            return letters

    def current(self, task_id: str) -> Task | None:
        """The newest form of a task."""
        with self._lock:
            known = self._open.get(task_id)
            return None if known is None else known.task

    def finished(self, reply: Reply) -> Reply:
        """Keep a reply, and let go of the oldest ones that the server never mentioned."""
        with self._lock:
            if (known := self._open.get(reply.task_id)) is not None:
                known.reply = reply
            done = [t for t, kept in self._open.items() if kept.reply and not kept.letter]
            for task_id in done[: -self._replies]:
                self._note_settled(task_id)
        return reply

    def reply_of(self, task_id: str) -> Reply | None:
        """The reply that is kept."""
        with self._lock:
            known = self._open.get(task_id)
            return None if known is None else known.reply

    def published(self, task_id: str) -> Letter | None:
        """The letter to ack: the broker has the reply."""
        with self._lock:
            known = self._open.get(task_id)
            if known is None:
                return None
            letter, known.letter = known.letter, None
            return letter

    def settle(self, task_id: str) -> Letter | None:
        """Let go of a task."""
        with self._lock:
            return self._note_settled(task_id)

    def of_job(self, job: str) -> list[str]:
        """Ids of the job's tasks."""
        with self._lock:
            return [task_id for task_id, kept in self._open.items() if kept.task.job == job]

    def left_over(self) -> list[Task]:
        """None: nothing outlives the process."""
        return []

    def age_of(self, task_id: str) -> float:
        """0: nothing outlives the process."""
        return 0.0

    def _note_settled(self, task_id: str) -> Letter | None:
        self._settled[task_id] = None
        if len(self._settled) > self._remember:
            self._settled.popitem(last=False)
        known = self._open.pop(task_id, None)
        return None if known is None else known.letter
