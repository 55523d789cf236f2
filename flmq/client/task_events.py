"""What happens to each task of a worker, told to its observers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

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
    """Tells observers of tasks, with the worker's time. Any thread may call its methods."""

    def __init__(
        self,
        emit: Callable[[WorkerEvent], None] = lambda event: None,
        *,
        level: int = logging.INFO,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Tell ``emit``; ``clock`` gives Unix seconds.

        ``level`` is that of the line of log for each task that went well.
        """
        self._emit = emit
        self._clock = clock
        self.level = level

    def received(self, task: Task, *, again: bool) -> None:
        """A task came; ``again``: the broker delivered it before."""
        self._emit(TaskReceived(_ref(task), self._clock(), again))

    def started(self, task: Task) -> None:
        """A task is begun, its model read and its client called."""
        self._emit(TrainingStarted(_ref(task), self._clock()))

    def ended(self, reply: Reply) -> None:
        """A task is done."""
        res = reply.res
        error = f"{res.exception_type}: {res.message}" if isinstance(res, Failure) else ""
        examples = getattr(res, "num_examples", None)
        self._emit(TrainingEnded(_ref(reply), self._clock(), reply.seconds, examples, error))

    def sent(self, reply: Reply) -> None:
        """The broker has all of a reply."""
        self._emit(ReplySent(_ref(reply), self._clock()))

    def settled(self, receipt: Receipt) -> None:
        """The server said what became of a reply."""
        outcome, reason = receipt.outcome.value, receipt.reason
        self._emit(ReceiptCame(_ref(receipt), self._clock(), outcome, reason))


def _ref(of: Task | Reply | Receipt) -> TaskRef:
    return TaskRef(of.job, of.server_round, of.phase, of.client_id, of.task_id)


def level_for(clients: int) -> int:
    """One client's tasks are news; those of a thousand simulated ones are not."""
    return logging.INFO if clients == 1 else logging.DEBUG
