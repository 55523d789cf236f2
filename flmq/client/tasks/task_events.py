"""Report to observers what happens to each task of a worker."""

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

    def received(self, task: Task, *, again: bool) -> None:
        """Report that a task arrived; ``again``: it is a redelivery."""
        self._emit(TaskReceived(_ref(task), self._clock(), again))

    def started(self, task: Task) -> None:
        """Report that a task begins: its model is read and its client called."""
        self._emit(TrainingStarted(_ref(task), self._clock()))

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
