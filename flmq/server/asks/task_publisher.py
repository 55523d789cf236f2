"""Publish the tasks of a phase, and publish them again where they may be lost.

Never publish with the reply loop's lock held: a full window blocks, and the publisher's thread
needs that lock to report unroutable tasks.
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
"""Seconds after which a new server has heard of every client present; fewer if heartbeats are more
frequent."""
_RECENTLY = 120.0
"""A client heard within this many seconds before a phase opened counts as present."""


class TaskPublisher:
    """Creates and publishes the tasks of a job. Thread-safe."""

    def __init__(
        self, context: JobContext, loop: ReplyLoop, *, codec: str, heartbeat: float
    ) -> None:
        """Start the clock for `all_heard`: create this just before clients are discovered.

        ``codec`` is offered for replies; ``heartbeat`` is the clients' interval, in seconds.
        """
        self._context = context
        self._job = context.job
        self._presence = context.presence
        self._loop = loop
        self._codec = codec
        self._all_heard_at = context.clock() + min(_ALL_HEARD_AFTER, 2.5 * heartbeat)
        self._asked_before: set[str] = set()
        """Clients that an earlier server asked in a phase that this server resumed."""

    def tasks(
        self,
        key: PhaseKey,
        asks: Mapping[str, Ask],
        timeout: float | None,
        refs: Mapping[str, BlobRef],
    ) -> dict[str, Task]:
        """Return the tasks of a phase, by ask name.

        ``timeout`` is in seconds; None: no deadline. ``refs`` maps asks to the published models
        that their tasks name.
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
        """Publish a task that expires in its queue after ``timeout`` seconds; None: never."""
        site, at = self._presence.site(task.client_id), self._context.now_ms()
        sent = self._context.sender.send(
            Address(TASKS, task_key(site, task.client_id)),
            task,
            expiration=timeout,
            # The server has it in its journal, and publishes it again if the broker restarts.
            persistent=False,
            message_id=task.task_id,
        )
        with self._loop.lock:
            phase.bytes_down += sent.bytes
            phase.published.setdefault(ask, at)
        sent.outcome.add_done_callback(partial(self._published, phase, ask))

    def _published(self, phase: PhaseInFlight, ask: str, sent: Future[PublishOutcome]) -> None:
        """Handle the outcome of publishing a task, on the publisher's thread."""
        error = sent.exception()
        if isinstance(error, TransportClosed):
            return
        client_id = client_of(ask)
        if isinstance(error, FlmqError):
            # A refusal by the broker is not the client's failure: treating it as one would let the
            # run continue without this client, and change its result.
            logger.error("the task of client %s could not be published: %s", client_id, error)
            self._loop.give_up(error)
        elif sent.result() is PublishOutcome.UNROUTABLE:
            if self._may_be_there(phase, client_id):
                # Its queue was deleted or is on a node that is down; the client declares it again.
                with self._loop.lock:
                    phase.unrouted.add(ask)
                return
            self._presence.gone(client_id)
            event = PhaseEvent(phase.key, TaskUnroutable(ask), self._context.clock())
            # The publisher's thread must not perform the resulting actions.
            self._loop.feed(event, perform=False)

    def _may_be_there(self, phase: PhaseInFlight, client_id: str) -> bool:
        """Return whether a client without a queue may have one again before the deadline.

        True if an earlier server asked it, or it was present when chosen: the broker may have lost
        its queue, and the client may still be reconnecting. False if the client left, had long
        been away when chosen, or was never present.
        """
        if phase.resumed:
            return True
        if self._presence.knows(client_id):
            return self._presence.was_there(client_id, phase.opened - _RECENTLY)
        return client_id in self._asked_before or not self.all_heard

    @property
    def all_heard(self) -> bool:
        """Return whether every client present has had time to be heard since the server started."""
        return self._context.clock() >= self._all_heard_at

    @property
    def times_lost(self) -> int:
        """How often the connection was lost, and what the broker held in memory with it."""
        return self._context.sender.times_lost

    def resume(self, phase: PhaseInFlight, opened_ms: int) -> None:
        """Note that an earlier server planned the phase and may have asked its clients.

        It opened it at ``opened_ms``, in Unix ms: its tasks were published then, or soon after.
        """
        phase.resumed, phase.opened_ms = True, opened_ms
        phase.published = dict.fromkeys(phase.asks, opened_ms)
        self._asked_before.update(ask.client_id for ask in phase.asks.values())

    def publish_again(self, phase: PhaseInFlight, asks: Set[str], deadline: float | None) -> None:
        """Publish again the tasks of those ``asks`` that are still pending.

        A client that is training recognizes its task; one that is done sends its reply again. So
        losing a task or reply with a queue costs time but no contribution. ``deadline`` is in
        monotonic seconds; None: no deadline.
        """
        if not asks:
            return
        with self._loop.lock:
            tasks = {
                ask: phase.tasks[ask]
                for ask in asks
                if phase.round.is_pending(ask) and ask in phase.tasks
            }
            anew = set(phase.anew)
        timeout = None if deadline is None else max(0.0, deadline - self._context.clock())
        for ask, task in sorted(tasks.items()):
            if ask in anew:
                task = replace(task, again=self._job.epoch)
            self.publish(phase, ask, task, timeout)
