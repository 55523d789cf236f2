"""The tasks of a worker: those waiting, being done, and done, with their replies.

A broker delivers at least once: the same task may come again while it waits, during training and
after it is done. It is recognized by its id. A reply is kept until the server is known to have it,
to be sent again if it was lost on the way.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from flmq.common.logger import logger
from flmq.common.parameter import parameters_of
from flmq.messaging import Incoming
from flmq.wire import Reply, Task, encode, size_of

__all__ = ["AckPolicy", "Admission", "Settled", "Tasks", "VolatileTasks", "asks_the_same"]

_KEPT_REPLIES = 4
_KEPT_BYTES = 256 << 20


class AckPolicy(Enum):
    """When the broker may forget a task that a worker received."""

    ACCEPT = "accept"
    """Once it is in the worker's spool: training of any length and hours offline are ordinary, and
    nothing that was finished is trained again after a crash. Needs a folder that outlives the
    process."""
    RESULT = "result"
    """Once its reply is with the broker: a worker without a disk, whose task goes back to its queue
    when it dies. Training longer than the broker's delivery acknowledgement timeout brings the
    task again; it is recognized, and not begun twice."""


class Admission(Enum):
    """How the worker treats a task that arrives."""

    NEW = "new"
    AGAIN = "again"
    """Known, and not done: what is newer about it (its deadline, its message) was noted."""
    DONE = "done"
    """Done, and its reply is available: to be sent again."""
    SETTLED = "settled"
    """Done, and the server has sent its receipt, or ended its job."""


class Tasks(Protocol):
    """Store of a worker's tasks. Thread-safe."""

    is_durable: bool
    """Whether an admitted task outlives the process, so that its message may be acked at once."""

    def admit(self, task: Task, incoming: Incoming) -> Admission:
        """Store a task that came with ``incoming``; durably if the policy is ACCEPT."""

    def superseded(self) -> list[Incoming]:
        """Return messages that a later one of the same task replaced, to be acked."""

    def current(self, task_id: str) -> Task | None:
        """Return the newest form of a task that is not settled; None if unknown."""

    def finished(self, reply: Reply) -> Reply:
        """Store the reply to a task; durably if the policy is ACCEPT."""

    def reply_of(self, task_id: str) -> Reply | None:
        """Return the stored reply; None if there is none."""

    def published(self, task_id: str) -> Incoming | None:
        """Note that the broker has the reply; return the message to ack now, if any."""

    def settle(self, task_id: str) -> Incoming | None:
        """Settle a task, by its receipt or its job's end; return the message to ack, if any."""

    def let_go(self, task_id: str) -> Incoming | None:
        """Forget a task that is not settled, so that it is redone if asked; return what to ack."""

    def of_job(self, job: str) -> list[str]:
        """Return the ids of the job's tasks that are not settled."""

    def left_over(self) -> list[Task]:
        """Return tasks of an earlier process that are not settled, to be done or sent."""

    def age_of(self, task_id: str) -> float:
        """Return the seconds since the newest form of a task of an earlier process arrived."""


def asks_the_same(one: Task, other: Task) -> bool:
    """Return whether two forms of a task ask the same, so that one reply answers both.

    A server whose run folder is an older copy may reach the same round with another model.
    """
    if (one.model and one.model.digest) != (other.model and other.model.digest):
        return False
    return one is other or _question(one) == _question(other)


def _question(task: Task) -> bytes:
    plain = replace(task, epoch=0, again=0, deadline_unix_ms=None, timeout_seconds=None)
    # The run is not compared either: it is part of the id, and earlier servers do not send it.
    # Nor is the way that the reply takes.
    return encode(replace(plain, model=None, nonce=b"", reply_codec="", run="", via=""))


class Settled:
    """The tasks settled last, to recognize them when they come again."""

    def __init__(self, remember: int) -> None:
        """Remember the last ``remember`` tasks."""
        self._remember = remember
        self._tasks: OrderedDict[str, int] = OrderedDict()
        """For each task, the epoch of the server that last wanted it done anew; 0 if none did."""

    def add(self, task_id: str, task: Task | None) -> None:
        """Remember a task that is settled in this form; None if its form is unknown."""
        self._tasks[task_id] = self._tasks.get(task_id, 0) if task is None else task.again
        self._tasks.move_to_end(task_id)
        if len(self._tasks) > self._remember:
            self._tasks.popitem(last=False)

    def recognize(self, task: Task) -> bool:
        """Return whether a task is settled; no longer, if its server wants it done anew."""
        again = self._tasks.get(task.task_id)
        if again is not None and task.again not in (0, again):
            del self._tasks[task.task_id]
            return False
        return again is not None

    def __contains__(self, task_id: object) -> bool:
        """Return whether the task with this id is settled."""
        return task_id in self._tasks


@dataclass(slots=True)
class _Kept:
    task: Task
    incoming: Incoming | None
    reply: Reply | None = None


class VolatileTasks:
    """Store in memory, for `AckPolicy.RESULT`: the un-acked message survives a crash."""

    is_durable = False

    def __init__(
        self,
        *,
        remember: int = 1024,
        replies: int = _KEPT_REPLIES,
        max_bytes: int = _KEPT_BYTES,
    ) -> None:
        """Remember the last ``remember`` settled tasks, and keep the last replies to others.

        The last ``replies``, with at most ``max_bytes`` of parameters besides the very last.
        """
        self._replies = replies
        self._max_bytes = max_bytes
        self._open: dict[str, _Kept] = {}
        self._done: OrderedDict[str, int] = OrderedDict()
        """Bytes of each kept reply, most recent last."""
        self._settled = Settled(remember)
        self._superseded: list[Incoming] = []
        self._lock = threading.Lock()

    def admit(self, task: Task, incoming: Incoming) -> Admission:
        """Store a task with the newest message that brought it, as an older one may be stale."""
        with self._lock:
            if self._settled.recognize(task):
                return Admission.SETTLED
            known = self._open.get(task.task_id)
            if known is None:
                self._open[task.task_id] = _Kept(task, incoming)
                return Admission.NEW
            if known.incoming is not None:
                self._superseded.append(known.incoming)
            if known.reply is not None and not asks_the_same(known.task, task):
                known.reply = None
                del self._done[task.task_id]
            known.task, known.incoming = task, incoming
            return Admission.AGAIN if known.reply is None else Admission.DONE

    def superseded(self) -> list[Incoming]:
        """Return messages that a later one replaced, or whose task was dropped."""
        with self._lock:
            incomings, self._superseded = self._superseded, []
            return incomings

    def current(self, task_id: str) -> Task | None:
        """Return the newest form of a task."""
        with self._lock:
            known = self._open.get(task_id)
            return None if known is None else known.task

    def finished(self, reply: Reply) -> Reply:
        """Keep a reply, and drop the oldest ones if they are too many."""
        parameters = parameters_of(reply.res)
        with self._lock:
            if (known := self._open.get(reply.task_id)) is not None:
                known.reply = reply
                self._done[reply.task_id] = 0 if parameters is None else size_of(parameters)
                self._done.move_to_end(reply.task_id)
            while len(self._done) > 1 and (
                len(self._done) > self._replies or sum(self._done.values()) > self._max_bytes
            ):
                self._drop(next(iter(self._done)))
        return reply

    def _drop(self, task_id: str) -> None:
        kept = self._forget(task_id)
        assert kept is not None
        if kept.incoming is not None:
            self._superseded.append(kept.incoming)
        logger.warning(
            "job %s, round %d, %s: our reply is let go, for no receipt of it came and memory "
            "holds no more: asked again, %s does the task anew; --state-dir keeps replies on disk",
            kept.task.job,
            kept.task.server_round,
            kept.task.phase.value,
            kept.task.client_id,
        )

    def reply_of(self, task_id: str) -> Reply | None:
        """Return the reply that is kept."""
        with self._lock:
            known = self._open.get(task_id)
            return None if known is None else known.reply

    def published(self, task_id: str) -> Incoming | None:
        """Return the message to ack, as the broker has the reply."""
        with self._lock:
            known = self._open.get(task_id)
            if known is None:
                return None
            incoming, known.incoming = known.incoming, None
            return incoming

    def settle(self, task_id: str) -> Incoming | None:
        """Settle a task."""
        with self._lock:
            known = self._forget(task_id)
            self._settled.add(task_id, None if known is None else known.task)
        return None if known is None else known.incoming

    def let_go(self, task_id: str) -> Incoming | None:
        """Forget a task that is not settled."""
        with self._lock:
            known = self._forget(task_id)
        return None if known is None else known.incoming

    def of_job(self, job: str) -> list[str]:
        """Return the ids of the job's tasks."""
        with self._lock:
            return [task_id for task_id, kept in self._open.items() if kept.task.job == job]

    def left_over(self) -> list[Task]:
        """Return nothing: nothing outlives the process."""
        return []

    def age_of(self, task_id: str) -> float:
        """Return 0: nothing outlives the process."""
        return 0.0

    def _forget(self, task_id: str) -> _Kept | None:
        self._done.pop(task_id, None)
        return self._open.pop(task_id, None)
