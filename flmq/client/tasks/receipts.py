"""Receipts of replies: log them, and ask for them if they do not arrive.

Only a receipt, or the end of its job, releases a reply. A receipt may be lost, with the client's
queue for instance: the reply's envelope is then sent again, without its parameters, and the server
answers with the receipt once more, or waits for what is still on its way. A reply that finds no
queue was not sent at all: its server is away, or the broker lost its data. It is sent when the
server is heard again or asks for it, and periodically.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.logger import logger
from flmq.common.typing import Code
from flmq.wire import Receipt, ReceiptOutcome, Reply, Task

__all__ = ["KEPT_FOR", "AwaitedReceipts", "log_receipt"]

_PATIENCE = 60.0
"""Seconds in which a receipt usually arrives."""
_SOON = 5.0
"""Seconds after which a missing queue usually exists."""
_LONGEST = 3600.0
KEPT_FOR = 14 * 24 * 3600.0
"""Seconds after which a reply is dropped that nobody asked for."""


@dataclass(slots=True)
class _Awaited:
    what: Reply | Task
    """The reply's envelope; its task if nothing was sent."""
    since: float
    due: float
    patience: float


class AwaitedReceipts:
    """Replies that are done, and whose receipts have not arrived. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start empty; ``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._awaited: dict[str, _Awaited] = {}
        self._unsent: dict[str, set[str]] = {}
        """Ids of tasks whose reply found no queue, by job: asked for at every roll call."""

    def __len__(self) -> int:
        """Return how many receipts are awaited."""
        return len(self._awaited)

    def sent(self, envelope: Reply) -> None:
        """Await the receipt of the reply whose ``envelope`` the broker has."""
        with self._lock:
            now = self._clock()
            self._forget(envelope.task_id)
            self._awaited[envelope.task_id] = _Awaited(envelope, now, now + _PATIENCE, _PATIENCE)

    def not_sent(self, task: Task) -> bool:
        """Note that a task's reply found no queue; return whether that is new."""
        with self._lock:
            known, now = self._awaited.get(task.task_id), self._clock()
            if known is not None and isinstance(known.what, Task):
                known.what = task
                return False
            since = now if known is None else known.since
            self._awaited[task.task_id] = _Awaited(task, since, now + _SOON, _SOON)
            self._unsent.setdefault(task.job, set()).add(task.task_id)
            return True

    def is_sent(self, task_id: str) -> bool:
        """Return whether the broker has a reply whose receipt has not arrived."""
        with self._lock:
            known = self._awaited.get(task_id)
            return known is not None and isinstance(known.what, Reply)

    def hurry(self, task_id: str) -> None:
        """Ask for this receipt without further waiting."""
        with self._lock:
            if (known := self._awaited.get(task_id)) is not None:
                known.due = self._clock()

    def settled(self, task_id: str) -> None:
        """Stop waiting for this receipt."""
        with self._lock:
            self._forget(task_id)

    def overdue(self) -> list[Reply | Task]:
        """Return envelopes to send again now, and tasks whose reply to send whole.

        Each is due again after twice the time, at most an hour.
        """
        now = self._clock()
        with self._lock:
            late = [each for each in self._awaited.values() if each.due <= now]
            for each in late:
                each.patience = min(2 * each.patience, _LONGEST)
                each.due = now + each.patience
        return [each.what for each in late]

    def unsent(self, job: str) -> list[Task]:
        """Return the job's tasks whose reply found no queue."""
        with self._lock:
            found = [self._awaited[task_id].what for task_id in self._unsent.get(job, ())]
        return [task for task in found if isinstance(task, Task)]

    def too_old(self) -> list[Reply | Task]:
        """Return what has waited for `KEPT_FOR` seconds, and stop waiting for it."""
        before = self._clock() - KEPT_FOR
        with self._lock:
            old = [each.what for each in self._awaited.values() if each.since <= before]
            for what in old:
                self._forget(what.task_id)
        return old

    def _forget(self, task_id: str) -> None:
        """Stop waiting; under the lock."""
        known = self._awaited.pop(task_id, None)
        if known is not None and isinstance(known.what, Task):
            unsent = self._unsent[known.what.job]
            unsent.discard(task_id)
            if not unsent:
                del self._unsent[known.what.job]


def log_receipt(receipt: Receipt) -> None:
    """Log the outcome of a reply."""
    where = f"job {receipt.job}, round {receipt.server_round}, {receipt.phase.value}"
    match receipt.outcome:
        case ReceiptOutcome.ACCEPTED if receipt.reason.partition(":")[0] in Code.__members__:
            logger.warning("%s: our reply was taken for a failure: %s", where, receipt.reason)
        case ReceiptOutcome.ACCEPTED if receipt.reason.startswith("accepted late"):
            logger.info("%s: our reply was %s", where, receipt.reason)
        case ReceiptOutcome.ACCEPTED:
            # An exception here was logged when it was raised; the receipt repeats it as the reason.
            logger.debug("%s: the server has our reply %s", where, receipt.reason)
        case ReceiptOutcome.LATE:
            logger.warning(
                "%s: our reply came %.1f s late and was not counted", where, receipt.late_by_seconds
            )
        case ReceiptOutcome.DUPLICATE:
            logger.info("%s: the server had our reply already", where)
        case ReceiptOutcome.REJECTED:
            logger.warning("%s: our reply was rejected: %s", where, receipt.reason)
