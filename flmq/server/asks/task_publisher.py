"""Asking clients: the tasks of a phase, published, and published again where they may be lost.

Nothing is published with the reply loop's lock held, for a full window blocks, and the publisher's
thread needs that lock to report what was unroutable.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from flmq.common.errors import FlmqError, TransportClosed
from flmq.common.logger import logger
from flmq.common.parameter import without_parameters
from flmq.round import PhaseKey, TaskUnroutable, client_of
from flmq.round.job_events import PhaseEvent
from flmq.server.job.context import JobContext
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.request import Ask
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.transport import TASKS, Address, PublishOutcome, task_key
from flmq.wire import BlobRef, Task

__all__ = ["TaskPublisher"]

_ALL_HEARD_AFTER = 10.0
"""Seconds after its start at which a server has heard of every client that is there, or fewer where
heartbeats come more often."""
_RECENTLY = 120.0
"""Seconds before a phase was opened within which a client that was heard was there."""


class TaskPublisher:
    """Makes and publishes the tasks of a job. Thread-safe."""

    def __init__(
        self, context: JobContext, loop: ReplyLoop, *, codec: str, heartbeat: float
    ) -> None:
        """Ask for a job, from now on: make it when clients are about to be discovered.

        ``codec`` is offered for replies; ``heartbeat`` is what clients are asked for, in seconds.
        """
        self._context = context
        self._job = context.job
        self._presence = context.presence
        self._loop = loop
        self._codec = codec
        self._all_heard_at = context.clock() + min(_ALL_HEARD_AFTER, 2.5 * heartbeat)
        self._asked_before: set[str] = set()
        """Clients that an earlier server has asked in a phase that this one went on with."""

    def tasks(
        self,
        key: PhaseKey,
        asks: Mapping[str, Ask],
        timeout: float | None,
        refs: Mapping[str, BlobRef],
    ) -> dict[str, Task]:
        """The tasks of a phase, by the names of its ``asks``.

        ``timeout`` is in seconds; ``refs`` says for each ask which model its task names, if any.
        """
        deadline = None if timeout is None else round((self._context.wall_clock() + timeout) * 1000)
        tasks = {}
        for name, ask in asks.items():
            task = self._job.task_id(key.server_round, key.phase, name, key.call)
            ref, ins = refs.get(name), ask.ins
            if ref is not None:
                ins = without_parameters(ins)
            tasks[name] = Task(
                task_id=task,
                job=self._job.name,
                server_round=key.server_round,
                phase=key.phase,
                client_id=ask.client_id,
                epoch=self._job.epoch,
                nonce=self._job.nonce(task),
                ins=ins,
                deadline_unix_ms=deadline,
                timeout_seconds=timeout,
                model=ref,
                reply_codec=self._codec if ref is not None and ref.is_shared else "",
                run=self._job.run_id,
            )
        return tasks

    def publish(self, phase: PhaseInFlight, ask: str, task: Task, timeout: float | None) -> None:
        """Publish the task of an ask, which expires in its queue after ``timeout`` seconds."""
        site = self._presence.site(task.client_id)
        sent = self._context.sender.send(
            Address(TASKS, task_key(site, task.client_id)),
            task,
            expiration=timeout,
            message_id=task.task_id,
        )
        with self._loop.lock:
            phase.bytes_down += sent.bytes
        sent.outcome.add_done_callback(partial(self._published, phase, ask))

    def _published(self, phase: PhaseInFlight, ask: str, sent: Future[PublishOutcome]) -> None:
        """Hear from the publisher's thread what became of a task on its way."""
        error = sent.exception()
        if isinstance(error, TransportClosed):
            return
        client_id = client_of(ask)
        if isinstance(error, FlmqError):
            # What the broker refuses of ours is no client's failure: without it the run would go
            # on, and come to other bits.
            logger.error("the task of client %s could not be published: %s", client_id, error)
            self._loop.give_up(error)
        elif sent.result() is PublishOutcome.UNROUTABLE:
            if self._may_be_there(phase, client_id):
                # Its queue was deleted, or stands on a node that is down; it makes it anew.
                with self._loop.lock:
                    phase.unrouted.add(ask)
                return
            self._presence.gone(client_id)
            event = PhaseEvent(phase.key, TaskUnroutable(ask), self._context.clock())
            # The publisher's own thread must not do what follows from it.
            self._loop.feed(event, perform=False)

    def _may_be_there(self, phase: PhaseInFlight, client_id: str) -> bool:
        """Whether a client that has no queue may have one again before its round's deadline.

        So it is where an earlier server asked it, or it was chosen for being there: the broker may
        have lost its queue, and the client be as far away as the broker was. It is not where the
        client took its leave, had long been away when it was chosen, or was never there.
        """
        if phase.resumed:
            return True
        if self._presence.knows(client_id):
            return self._presence.was_there(client_id, phase.opened - _RECENTLY)
        return client_id in self._asked_before or not self.all_heard

    @property
    def all_heard(self) -> bool:
        """Whether whoever is there has had time to say so since this server began."""
        return self._context.clock() >= self._all_heard_at

    def resume(self, phase: PhaseInFlight) -> None:
        """Note that a phase is one that an earlier server planned, and asked clients in."""
        phase.resumed = True
        self._asked_before.update(ask.client_id for ask in phase.asks.values())

    def publish_again(self, phase: PhaseInFlight, asks: Set[str], deadline: float | None) -> None:
        """Publish the tasks of ``asks`` again that nothing has come of.

        Who is training recognizes its task; who is done sends its reply again. So a task or a
        reply that was lost with a queue costs time, and no contribution.
        """
        if not asks:
            return
        with self._loop.lock:
            wanted = asks & set(phase.round.pending())
            tasks = {ask: phase.tasks[ask] for ask in wanted if ask in phase.tasks}
            anew = set(phase.anew)
        timeout = None if deadline is None else max(0.0, deadline - self._context.clock())
        for ask, task in sorted(tasks.items()):
            if ask in anew:
                task = replace(task, again=self._job.epoch)
            self.publish(phase, ask, task, timeout)
