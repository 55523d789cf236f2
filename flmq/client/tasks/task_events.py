"""Report to observers what happens to each task of a worker."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from flmq.client.tasks.courses import Courses
from flmq.observe.events import (
    ReceiptCame,
    ReplySent,
    TaskReceived,
    TaskRef,
    TrainingEnded,
    TrainingStarted,
    WorkerEvent,
)
from flmq.wire import Failure, Receipt, Reply, Task

__all__ = ["TaskEvents", "level_for"]


class TaskEvents:
    """Emit events about tasks, with the worker's time. Thread-safe."""

    def __init__(
        self,
        emit: Callable[[WorkerEvent], None] = lambda event: None,
        *,
        level: int = logging.INFO,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Emit to ``emit``; ``clock`` gives Unix seconds.

        ``level`` is the level of the log line for each task that succeeded.
        """
        self._emit = emit
        self._clock = clock
        self.level = level
        self._courses = Courses()

    def received(self, task: Task, *, again: bool) -> None:
        """Report that a task arrived; ``again``: it is a redelivery."""
        at = self._clock()
        self._courses.taken(task.task_id, at, again=again)
        self._emit(TaskReceived(_ref(task), at, again))

    def started(self, task: Task, age_of: Callable[[str], float] = lambda task_id: 0.0) -> None:
        """Report that a task begins: its model is read and its client called.

        ``age_of`` returns how many seconds ago it came, if that was before this process.
        """
        at = self._clock()
        self._courses.begun(task.task_id, at, age_of)
        self._emit(TrainingStarted(_ref(task), at))

    def loaded(self, task: Task) -> None:
        """Note that the model of a task that was started is there, and its client is called."""
        self._courses.loaded(task.task_id, self._clock())

    def died(self, task: Task, deaths: int) -> None:
        """Note how many processes are known to have died in a task that was started."""
        self._courses.died(task.task_id, deaths)

    def with_times(self, reply: Reply) -> Reply:
        """Return the reply to a task that is done, with the task's course."""
        return reply.timed(self._courses.ended(reply.task_id, self._clock()))

    def sending(self, reply: Reply) -> Reply:
        """Return a reply with the time at which it is about to be sent."""
        times = reply.times
        if times is None:
            return reply
        return reply.timed(times.uploaded_at(round(self._clock() * 1000)))

    def ended(self, reply: Reply) -> None:
        """Report that a task is done."""
        res = reply.res
        error = f"{res.exception_type}: {res.message}" if isinstance(res, Failure) else ""
        examples = getattr(res, "num_examples", None)
        self._emit(TrainingEnded(_ref(reply), self._clock(), reply.seconds, examples, error))

    def sent(self, reply: Reply) -> None:
        """Report that the broker has all of a reply."""
        self._emit(ReplySent(_ref(reply), self._clock()))

    def settled(self, receipt: Receipt) -> None:
        """Report the receipt of a reply."""
        outcome, reason = receipt.outcome.value, receipt.reason
        self._emit(ReceiptCame(_ref(receipt), self._clock(), outcome, reason))


def _ref(of: Task | Reply | Receipt) -> TaskRef:
    run = of.run if isinstance(of, Task) else ""
    return TaskRef(of.job, of.server_round, of.phase, of.client_id, of.task_id, run)


def level_for(clients: int) -> int:
    """Return the log level for tasks: a single client's are news, those of a thousand are not."""
    return logging.INFO if clients == 1 else logging.DEBUG
