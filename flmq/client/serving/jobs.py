"""The jobs that a worker serves: which servers are in charge, who greeted us, and what is over."""

from __future__ import annotations

import time
from collections.abc import Callable

from flmq.client.factory import Clients
from flmq.client.serving.epochs import Epochs
from flmq.client.serving.herald import Herald
from flmq.client.serving.work import Work
from flmq.client.tasks.answering import LONGEST_LEAVE
from flmq.common.logger import logger
from flmq.common.typing import ReconnectIns
from flmq.transport import Message
from flmq.wire import JobEnded, RollCall, Task

__all__ = ["Jobs"]


class Jobs:
    """The jobs of one worker. For its listener's thread, unless stated otherwise."""

    def __init__(
        self,
        herald: Herald,
        clients: Clients,
        size: int,
        *,
        once: bool,
        stop: Callable[[], None],
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Answer servers through ``herald``, for ``size`` client ids.

        With ``once``, ``stop`` is called when the first job ends. ``unix_clock`` gives Unix
        seconds.
        """
        self._herald = herald
        self._clients = clients
        self._size = size
        self._once = once
        self._stop = stop
        self._epochs = Epochs(unix_clock, self._let_go)
        self._greeted: set[str] = set()
        """Jobs whose server has been alive since our start."""
        self._asked: set[str] = set()
        """Jobs that have sent a task and have not ended."""
        self._left: dict[str, set[str]] = {}
        """Clients that were asked to leave for good, by job."""
        self._served_one = False
        """Whether a job that greeted us has ended."""
        self.is_over = False
        """Whether to stop once nothing more comes."""

    def begin(self, work: Work) -> None:
        """Decide for ``work`` from now on."""
        self._work = work

    def hear_task(self, task: Task) -> bool:
        """Note a task; return False if it is an earlier server's."""
        if not self._epochs.hear(task.job, task.epoch, task.run):
            return False
        self._asked.add(task.job)
        return True

    def hear_roll_call(self, roll_call: RollCall, message: Message, client_id: str) -> None:
        """Say hello to a server that asks who is there, or that greets a client.

        Only a greeting proves that the server is alive: a roll call may have waited in the queue
        since before our start. The greeting's message id is sent back, which proves that this
        client's queue is being read.
        """
        answers = message.correlation_id
        if answers not in ("", self._herald.instance):
            return  # meant for a process that had this client id before us
        if not self._epochs.hear(roll_call.job, roll_call.epoch, roll_call.run):
            return
        if self._epochs.takes_over(roll_call.job, roll_call.run):
            self._begin_anew(roll_call)
        self._work.hear_of(roll_call.job, roll_call.run)
        if roll_call.heartbeat_seconds > 0:
            self._herald.every = min(self._herald.every, roll_call.heartbeat_seconds)
        if answers:
            self._greeted.add(roll_call.job)
        self._herald.hear(roll_call.job, hears_others=roll_call.hears_others)
        if roll_call.refused:
            logger.warning(
                "job %s has no part for client %s: it is one of the clients that %s",
                roll_call.job,
                client_id,
                roll_call.refused,
            )
            return
        self._herald.answer(client_id, message.message_id if answers else "")

    def _begin_anew(self, roll_call: RollCall) -> None:
        """Switch to another run of a job: its server was started with another folder, or none."""
        left = self._work.leave_other_runs(roll_call.job, roll_call.run)
        logger.warning(
            "job %s was begun anew by another server: %d tasks of its earlier run are dropped",
            roll_call.job,
            left,
        )

    def _let_go(self, job: str) -> None:
        """Forget one of far more jobs than there can be."""
        self._herald.forget(job)
        self._greeted.discard(job)
        self._asked.discard(job)
        self._left.pop(job, None)

    def end(self, ended: JobEnded, *, at_once: bool = False) -> None:
        """Forget a job. One whose server never greeted us ended before our start.

        Each client is told of it: unless ``at_once``, a process of many that stops with its first
        job leaves it to the listener to stop when all have been told (`is_over`).
        """
        runs = self._epochs.end(ended.job, ended.epoch, ended.run)
        if not runs:
            return
        logger.info("job %s ended: %s", ended.job, ended.reason)
        self._work.end_job(ended.job, runs)
        if self._epochs.knows(ended.job):
            return  # an earlier run is over; the current one goes on
        self._clients.forget(ended.job)
        self._served_one |= ended.job in self._greeted
        self._let_go(ended.job)
        if self._once and self._served_one:
            if at_work := sorted(self._asked & self._greeted):
                logger.info("going on until job %s ends, which we work in", ", ".join(at_work))
            elif self._size > 1 and not at_once:
                self.is_over = True
            else:
                self._stop()

    def leave(self, task: Task, ins: ReconnectIns) -> float:
        """Do as Flower's server asks: leave for good, or for the returned number of seconds.

        The process leaves the job when all of its clients have been asked to. A working thread
        calls it.
        """
        if ins.seconds is None:
            left = self._left.setdefault(task.job, set())
            left.add(task.client_id)
            if len(left) == self._size:
                reason = "the server asked us to leave"
                self.end(JobEnded(task.job, task.epoch, reason, task.run), at_once=True)
        elif 0 <= ins.seconds <= LONGEST_LEAVE:
            return ins.seconds
        return 0.0
