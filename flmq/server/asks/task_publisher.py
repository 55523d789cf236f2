"""Asking clients: the tasks of a phase, published, and published again where they may be lost.

Nothing is published with the task table's lock held, for a full window blocks, and the publisher's
thread needs that lock to report what was unroutable.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence, Set
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from flmq.common.errors import TransportClosed
from flmq.common.parameter import without_parameters
from flmq.messaging import Sender
from flmq.observe.events import RunEvent
from flmq.round import Event, ReplyFailed, TaskUnroutable
from flmq.server.asks.job import Job
from flmq.server.asks.phase_in_flight import PhaseInFlight, Request
from flmq.server.asks.task_table import TaskTable
from flmq.server.presence.watcher import PresenceWatcher
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
        self,
        job: Job,
        sender: Sender,
        table: TaskTable,
        presence: PresenceWatcher,
        emit: Callable[[RunEvent], None],
        *,
        codec: str,
        heartbeat: float,
    ) -> None:
        """Ask for ``job``, from now on: make it when the roll is about to be called.

        ``codec`` is offered for replies; ``heartbeat`` is what clients are asked for, in seconds.
        """
        self._job = job
        self._sender = sender
        self._table = table
        self._presence = presence
        self._emit = emit
        self._codec = codec
        self._clock = time.monotonic
        self._all_heard_at = self._clock() + min(_ALL_HEARD_AFTER, 2.5 * heartbeat)
        self._asked_before: set[str] = set()
        """Clients that an earlier server has asked in a phase that this one went on with."""

    def tasks(self, request: Request, call: int, refs: Mapping[str, BlobRef]) -> list[Task]:
        """The tasks of a phase; ``refs`` says for each client which model its task names, if any.

        ``call`` is how often this phase of this round was opened before.
        """
        timeout = request.timeout
        deadline = None if timeout is None else round((time.time() + timeout) * 1000)
        tasks = []
        for ask in request.asks:
            task = self._job.task_id(request.server_round, request.phase, ask.client_id, call)
            ref, ins = refs.get(ask.client_id), ask.ins
            if ref is not None:
                ins = without_parameters(ins)
            tasks.append(
                Task(
                    task_id=task,
                    job=self._job.name,
                    server_round=request.server_round,
                    phase=request.phase,
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
            )
        return tasks

    def publish(self, gather: PhaseInFlight, task: Task, timeout: float | None) -> None:
        """Publish a task, which expires in its queue after ``timeout`` seconds."""
        site = self._presence.site(task.client_id)
        sent = self._sender.send(
            Address(TASKS, task_key(site, task.client_id)),
            task,
            expiration=timeout,
            message_id=task.task_id,
        )
        with self._table.lock:
            gather.bytes_down += sent.bytes
        sent.outcome.add_done_callback(partial(self._published, gather, task.client_id))

    def _published(
        self, gather: PhaseInFlight, client_id: str, sent: Future[PublishOutcome]
    ) -> None:
        """Hear from the publisher's thread what became of a task on its way."""
        error = sent.exception()
        if isinstance(error, TransportClosed):
            return
        event: Event
        if error is not None:
            event = ReplyFailed(client_id, f"the task could not be published: {error}")
        elif sent.result() is PublishOutcome.UNROUTABLE:
            if self._may_be_there(gather, client_id):
                # Its queue was deleted, or stands on a node that is down; it makes it anew.
                with self._table.lock:
                    gather.unrouted.add(client_id)
                return
            event = TaskUnroutable(client_id)
            self._presence.gone(client_id)
        else:
            return
        with self._table.lock:
            for outcome in gather.feed(event, self._clock()):
                self._emit(outcome)

    def _may_be_there(self, gather: PhaseInFlight, client_id: str) -> bool:
        """Whether a client that has no queue may have one again before its round's deadline.

        So it is where an earlier server asked it, or it was chosen for being there: the broker may
        have lost its queue, and the client be as far away as the broker was. It is not where the
        client took its leave, had long been away when it was chosen, or was never there.
        """
        if gather.resumed:
            return True
        if self._presence.knows(client_id):
            return self._presence.was_there(client_id, gather.opened - _RECENTLY)
        return client_id in self._asked_before or not self.all_heard

    @property
    def all_heard(self) -> bool:
        """Whether whoever is there has had time to say so since this server began."""
        return self._clock() >= self._all_heard_at

    def resume(self, gather: PhaseInFlight) -> None:
        """Note that a phase is one that an earlier server planned, and asked clients in."""
        gather.resumed = True
        self._asked_before.update(gather.asks)

    def publish_again(
        self,
        gather: PhaseInFlight,
        tasks: Sequence[Task],
        clients: Set[str],
        deadline: float | None,
    ) -> None:
        """Publish the tasks of ``clients`` again that nothing has come of.

        Who is training recognizes its task; who is done sends its reply again. So a task or a
        reply that was lost with a queue costs time, and no contribution.
        """
        if not clients:
            return
        with self._table.lock:
            wanted = clients & set(gather.round.pending())
            anew = set(gather.anew)
        timeout = None if deadline is None else max(0.0, deadline - self._clock())
        for task in tasks:
            if task.client_id in wanted:
                if task.client_id in anew:
                    task = replace(task, again=self._job.epoch)
                self.publish(gather, task, timeout)
