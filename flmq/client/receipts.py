"""What became of replies: receipts are logged, and asked for where they do not come.

A receipt may be lost, with the client's queue for instance. What announced a reply is then said
again, without its parameters: the server answers with the receipt once more, goes on waiting for
what is still on its way, or is gone, and its queue with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from flmq.common.logger import logger
from flmq.wire import Receipt, ReceiptOutcome, Reply

__all__ = ["AwaitedReceipts", "log_receipt"]

_PATIENCE = 60.0
"""Seconds in which a receipt comes, by and large."""
_LONGEST = 3600.0


@dataclass(slots=True)
class _Awaited:
    envelope: Reply
    due: float
    patience: float


class AwaitedReceipts:
    """Replies that the broker has, and that no receipt came for. Thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """``clock`` gives seconds."""
        self._clock = clock
        self._lock = threading.Lock()
        self._awaited: dict[str, _Awaited] = {}

    def sent(self, envelope: Reply) -> None:
        """Wait for the receipt of a reply, which ``envelope`` announced."""
        with self._lock:
            due = self._clock() + _PATIENCE
            self._awaited[envelope.task_id] = _Awaited(envelope, due, _PATIENCE)

    def settled(self, task_id: str) -> None:
        """Wait no longer."""
        with self._lock:
            self._awaited.pop(task_id, None)

    def overdue(self) -> list[Reply]:
        """What to announce again now; each again after twice as long, an hour at most."""
        now = self._clock()
        with self._lock:
            late = [each for each in self._awaited.values() if each.due <= now]
            for each in late:
                each.patience = min(2 * each.patience, _LONGEST)
                each.due = now + each.patience
        return [each.envelope for each in late]


def log_receipt(receipt: Receipt) -> None:
    """Say what became of a reply."""
    where = f"job {receipt.job}, round {receipt.server_round}, {receipt.phase.value}"
    match receipt.outcome:
        case ReceiptOutcome.ACCEPTED if receipt.reason:
            logger.info("%s: our reply was %s", where, receipt.reason)
        case ReceiptOutcome.ACCEPTED:
            logger.debug("%s: the server has our reply", where)
        case ReceiptOutcome.LATE:
            logger.warning(
                "%s: our reply came %.1f s late and was not counted", where, receipt.late_by_seconds
            )
        case ReceiptOutcome.DUPLICATE:
            logger.info("%s: the server had our reply already", where)
        case ReceiptOutcome.REJECTED:
            logger.warning("%s: our reply was rejected: %s", where, receipt.reason)
