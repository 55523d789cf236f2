"""Waiting for a phase's replies: who is asked again meanwhile, and what is said of whom."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence, Set

from flmq.common.logger import logger
from flmq.observe.events import RunEvent
from flmq.round import DeadlinePassed, Event, Stopped
from flmq.server.asks.phase_in_flight import PhaseInFlight
from flmq.server.asks.task_publisher import TaskPublisher
from flmq.server.asks.task_table import TaskTable
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.listener import Listener
from flmq.server.replies.uploads import Uploads
from flmq.server.resumption.job_journal import JobJournal
from flmq.wire import Task

__all__ = ["Waiter"]

_LOOK_EVERY = 1.0
_ASK_AGAIN_EVERY = 30.0
_STILL_WAITING_EVERY = 60.0
_SUSPICIOUS = 3
_MAYBE_DROPPED = (
    "; their tasks were published %d times and nothing came of it: if they are not training, a "
    "policy on the broker may drop messages (`flmq doctor` names it)"
)


class Waiter:
    """Waits until phases close. Any number of threads may wait at once."""

    def __init__(
        self,
        table: TaskTable,
        presence: PresenceWatcher,
        task_publisher: TaskPublisher,
        uploads: Uploads,
        listener: Listener,
        job_journal: JobJournal | None,
        emit: Callable[[RunEvent], None],
    ) -> None:
        """Wait for what ``listener`` takes in, and have ``task_publisher`` ask again."""
        self._table = table
        self._presence = presence
        self._task_publisher = task_publisher
        self._uploads = uploads
        self._listener = listener
        self._job_journal = job_journal
        self._emit = emit
        self._clock = time.monotonic

    def wait(
        self, gather: PhaseInFlight, tasks: Sequence[Task], deadline: float | None, elapsed: float
    ) -> None:
        """Ask again what may be lost, and say whom the phase waits for, until it closes.

        ``deadline`` is in monotonic seconds; ``elapsed`` are the seconds for which the phase has
        been open under earlier servers.

        Raises:
            Fenced: another server took charge of the job.
        """
        started = said = asked = self._clock()
        came: Mapping[str, int] = {}
        absent: set[str] = set()
        all_heard = self._task_publisher.all_heard
        published = 1
        try:
            while not gather.done.wait(self._patience(deadline)):
                now = self._clock()
                if self._listener.trouble is not None:
                    # It may have ended before the phase was in the table, and nobody told us.
                    self._feed(gather, Stopped(str(self._listener.trouble)))
                    continue
                if gather.key is not None and self._job_journal is not None:
                    # Also finds out whether this server is still the one in charge.
                    self._job_journal.tick(gather.key, elapsed + now - started)
                with self._table.lock:
                    absent |= gather.unrouted
                    gather.unrouted = set()
                # Who is heard makes its queue anew; of who is not, it is tried now and then.
                there = {client_id for client_id in absent if self._presence.is_online(client_id)}
                if not all_heard and self._task_publisher.all_heard:
                    all_heard, there = True, set(absent)
                absent -= there
                self._task_publisher.publish_again(gather, tasks, there, deadline)
                if now - asked >= _ASK_AGAIN_EVERY:
                    asked, before, came = now, came, self._uploads.received()
                    quiet = {
                        task.client_id
                        for task in tasks
                        if self._presence.is_online(task.client_id)
                        # Whose reply is coming, chunk by chunk, would send it once more.
                        and came.get(task.task_id, 0) <= before.get(task.task_id, 0)
                    }
                    self._task_publisher.publish_again(gather, tasks, quiet | absent, deadline)
                    published += 1
                    absent = set()  # it is said once more of whom there is still no queue for
                if deadline is not None and now >= deadline:
                    self._feed(gather, DeadlinePassed())
                elif now - said >= _STILL_WAITING_EVERY:
                    said = now
                    self._say_whom_we_wait_for(gather, absent, published)
        except BaseException:
            self._feed(gather, Stopped("interrupted"))
            raise

    def _patience(self, deadline: float | None) -> float:
        if deadline is None:
            return _LOOK_EVERY
        return min(_LOOK_EVERY, max(0.0, deadline - self._clock()))

    def _say_whom_we_wait_for(
        self, gather: PhaseInFlight, absent: Set[str], published: int
    ) -> None:
        with self._table.lock:
            pending = gather.round.pending()
        if pending:
            lost = sorted(absent & set(pending))
            logger.log(
                logging.WARNING if lost else logging.INFO,
                "%s: waiting for %d of %d: %s%s%s",
                gather.round.label,
                len(pending),
                len(gather.round.tasks),
                _listed(pending),
                f"; no queue on the broker, and not heard of: {_listed(lost)}" if lost else "",
                _MAYBE_DROPPED % published if published >= _SUSPICIOUS else "",
            )

    def _feed(self, gather: PhaseInFlight, event: Event) -> None:
        with self._table.lock:
            for outcome in gather.feed(event, self._clock()):
                self._emit(outcome)


def _listed(client_ids: Sequence[str]) -> str:
    """The first of them, for people."""
    return ", ".join(client_ids[:10]) + (" ..." if len(client_ids) > 10 else "")
