"""A worker's tasks from arrival to end: the one place that decides on each task and reply.

A task waits for a thread, is done, and its reply is kept until the server is known to have it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from functools import partial

from flmq.client.serving.backlog import Backlog
from flmq.client.tasks.deaths import Deaths
from flmq.client.tasks.receipts import KEPT_FOR, AwaitedReceipts
from flmq.client.tasks.store import Admission, Tasks
from flmq.client.tasks.task_executor import TaskExecutor
from flmq.common.crashpoints import crash_point
from flmq.common.errors import TransportClosed
from flmq.common.logger import logger, logging_about
from flmq.common.typing import ReconnectIns
from flmq.messaging import Inbox, Incoming
from flmq.wire import Task

__all__ = ["Work"]


class Work:
    """The tasks of one worker's clients. Thread-safe."""

    def __init__(
        self,
        tasks: Mapping[str, Tasks],
        inbox: Inbox,
        executor: TaskExecutor,
        awaited: AwaitedReceipts,
        backlog: Backlog,
        *,
        leave: Callable[[Task, ReconnectIns], float],
        deaths: Deaths,
    ) -> None:
        """Keep each client's tasks in ``tasks``, run them with ``executor``, ack them to ``inbox``.

        ``backlog`` holds those that wait for a thread; ``leave`` is called on a working thread
        when a server sends a client away, and returns for how many seconds.
        """
        self._tasks = tasks
        self._inbox = inbox
        self._executor = executor
        self._awaited = awaited
        self._backlog = backlog
        self._leave = leave
        self._deaths = deaths

    # -- what comes: the listener's thread ---------------------------------------------------

    def take(self, task: Task, incoming: Incoming) -> None:
        """Accept a task that came with ``incoming``, new or again."""
        tasks = self._tasks[task.client_id]
        arrived = self._backlog.clock()
        admission = tasks.admit(task, incoming)
        if incoming.delivery.redelivered:
            self._deaths.came_again(task)
        self._ack_superseded(tasks)
        if admission is Admission.SETTLED:
            # Either the broker redelivers, or a server has no record of the reply.
            self._executor.say_settled(task)
        elif task.task_id in self._backlog:
            pass  # a large reply may take minutes to send
        elif (
            admission is Admission.DONE
            and incoming.delivery.redelivered
            and self._awaited.is_sent(task.task_id)
        ):
            # Usually the broker redelivers a task whose reply the server has: ask for its receipt.
            self._awaited.hurry(task.task_id)
            self._ack(tasks.published(task.task_id))
        else:
            if admission is not Admission.DONE:
                self._awaited.settled(task.task_id)  # the reply no longer exists
            self._backlog.put(task, arrived)
        if admission is Admission.SETTLED or tasks.is_durable:
            self._inbox.ack(incoming)
            crash_point("worker.task_acked")

    def settle(self, client_id: str, task_id: str) -> None:
        """Settle a task and drop its reply. Any thread may call it."""
        self._awaited.settled(task_id)
        self._deaths.end(client_id, task_id)
        self._ack(self._tasks[client_id].settle(task_id))

    def end_job(self, job: str, runs: Set[str]) -> None:
        """Drop all tasks of these runs of a job, which are over."""
        for client_id, task in self._of_job(job):
            if task.run in runs:
                self.settle(client_id, task.task_id)

    def leave_other_runs(self, job: str, run: str) -> int:
        """Drop the unfinished tasks of a job's other runs; return how many.

        Finished ones are kept until the job is over, or its server has their replies.
        """
        left = [
            (client_id, task.task_id)
            for client_id, task in self._of_job(job)
            if task.run != run and self._tasks[client_id].reply_of(task.task_id) is None
        ]
        for client_id, task_id in left:
            self.settle(client_id, task_id)
        return len(left)

    def _of_job(self, job: str) -> list[tuple[str, Task]]:
        return [
            (client_id, task)
            for client_id, tasks in self._tasks.items()
            for task_id in tasks.of_job(job)
            if (task := tasks.current(task_id)) is not None
        ]

    def hear_of(self, job: str, run: str) -> None:
        """Send replies that found no queue, as the server of the job's run was heard."""
        for task in self._awaited.unsent(job):
            if task.run == run:
                self._send_again(task)

    def look(self) -> None:
        """Handle receipts that have not arrived: see `flmq.client.tasks.receipts`."""
        self._deaths.look()
        for what in self._awaited.overdue():
            task = self._tasks[what.client_id].current(what.task_id)
            if task is None:
                self._awaited.settled(what.task_id)
            elif isinstance(what, Task):
                self._send_again(task)
            else:
                self._executor.announce_again(what, task.via, gone=partial(self._not_sent, task))
        for what in self._awaited.too_old():
            logger.warning(
                "job %s, round %d, %s: the reply of %s is let go: in %.0f days no server asked for "
                "it",
                what.job,
                what.server_round,
                what.phase.value,
                what.client_id,
                KEPT_FOR / 86400,
            )
            self._deaths.end(what.client_id, what.task_id)
            self._ack(self._tasks[what.client_id].let_go(what.task_id))

    def _send_again(self, task: Task) -> None:
        if task.task_id not in self._backlog:
            self._backlog.put(task)

    def _not_sent(self, task: Task) -> None:
        """Keep a reply that found no queue, as it may still be wanted. Any thread may call it."""
        if self._awaited.not_sent(task):
            logger.warning(
                "job %s, round %d, %s: no queue for the reply of %s: it is kept, and sent when the "
                "job's server is back",
                task.job,
                task.server_round,
                task.phase.value,
                task.client_id,
            )

    def _ack(self, incoming: Incoming | None) -> None:
        if incoming is not None:
            self._inbox.ack(incoming)

    def _ack_superseded(self, tasks: Tasks) -> None:
        for incoming in tasks.superseded():
            self._inbox.ack(incoming)

    # -- what is done: the working threads ---------------------------------------------------

    def run(self) -> None:
        """Run tasks as they come, until told to stop. Blocks; any number of threads may call it."""
        while (task := self._backlog.take()) is not None:
            rest = 0.0
            try:
                if self._is_left(task):
                    continue
                with logging_about(task):
                    rest = self._do(task)
            except TransportClosed:
                return
            finally:
                self._backlog.done(task, rest=rest)

    def leave(self) -> None:
        """Note that tasks at work are left as they are: their client ends, and did not die in them.

        Any thread may call it.
        """
        for task in self._backlog.tasks_at_work():
            self._deaths.leave(task)

    def _is_left(self, task: Task) -> bool:
        """Return whether a task is left for the next process: we end, and it is not done yet."""
        if not self._backlog.draining.is_set():
            return False
        return self._tasks[task.client_id].reply_of(task.task_id) is None

    def _do(self, task: Task) -> float:
        """Do a task; return for how many seconds its client then does nothing."""
        tasks = self._tasks[task.client_id]
        newest = tasks.current(task.task_id)
        if newest is None:
            return 0.0  # settled meanwhile: its job ended, or the server has the reply
        if not self._executor.do(newest, tasks, self._backlog.server_clock(newest)):
            self._not_sent(newest)
        else:
            self._ack(tasks.published(task.task_id))
        self._ack_superseded(tasks)
        if isinstance(task.ins, ReconnectIns):
            return self._leave(task, task.ins)
        return 0.0
