"""The coordinator: publishes tasks, hears replies, and runs each phase's round to its end.

Threads: callers of `gather` wait; one thread of the coordinator's own takes everything from the
job's queues. Nothing is published with the lock held, for a full window blocks the publisher,
and its thread needs the lock to report what was unroutable.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial

from flmq.common.errors import BrokerError, JobInUse, ResourceLocked, TransportClosed
from flmq.common.logger import logger
from flmq.common.phase import Phase
from flmq.post import Inbox, Letter, Outbox
from flmq.round import DeadlinePassed, Event, Policy, ReplyFailed, Stopped, TaskUnroutable, Word
from flmq.server.events import ClientOutcome, PhaseClosed, PhaseOpened, RunEvent
from flmq.server.gather import Ask, Check, Gather, Gathered, Taken
from flmq.server.job import Job
from flmq.server.presence import PresenceWatcher
from flmq.transport import (
    TASKS,
    Address,
    PublishOutcome,
    Transport,
    everybody_key,
    federation_topology,
    job_topology,
    presence_queue,
    replies_queue,
    task_key,
)
from flmq.wire import (
    Assembler,
    JobEnded,
    Presence,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    Task,
)

__all__ = ["Coordinator"]

_PREFETCH = 256
_REMEMBERED_GATHERS = 64
"""Closed phases whose late replies are still called late; to older ones nobody sent the task."""
_STILL_WAITING_EVERY = 30.0
_ROLL_CALL_EXPIRES = 30.0
_DAY = 24 * 3600.0
_RECEIPTS = {
    Word.LATE: ReceiptOutcome.LATE,
    Word.REJECTED: ReceiptOutcome.REJECTED,
    Word.DUPLICATE: ReceiptOutcome.DUPLICATE,
}


class Coordinator:
    """In charge of one job on one transport."""

    def __init__(
        self,
        transport: Transport,
        job: Job,
        presence: PresenceWatcher,
        emit: Callable[[RunEvent], None],
        *,
        sites: Sequence[str],
        heartbeat: float,
        max_reply_bytes: int,
    ) -> None:
        """Prepare; `start` takes charge.

        ``heartbeat`` is what clients are asked for, in seconds.
        """
        self.job = job
        self._transport = transport
        self._presence = presence
        self._emit = emit
        self._sites = tuple(sites)
        self._heartbeat = heartbeat
        self._max_reply_bytes = max_reply_bytes
        self._lock = threading.Lock()
        self._tasks: dict[str, tuple[Gather, str]] = {}
        self._gathers: OrderedDict[int, tuple[Gather, list[str]]] = OrderedDict()
        self._calls: Counter[tuple[int, Phase]] = Counter()
        self._clock = time.monotonic
        self._trouble: BrokerError | None = None

    def start(self) -> None:
        """Take charge of the job: its queues, its lock, and call the roll.

        Raises:
            JobInUse: another live server has it.
            BrokerError: the broker refuses or cannot be reached.
        """
        name = self.job.name
        for site in self._sites:
            self._transport.declare(federation_topology(site))
        try:
            self._transport.declare(job_topology(name))
        except ResourceLocked as error:
            raise JobInUse(name) from error
        self._publisher = self._transport.publisher()
        self._outbox = Outbox(self._publisher)
        self._consumer = self._transport.consumer(
            [replies_queue(name), presence_queue(name)], prefetch=_PREFETCH
        )
        assembler = Assembler(
            max_bytes_per_message=self._max_reply_bytes,
            max_total_bytes=4 * self._max_reply_bytes,
            max_open=10_000,
        )
        self._inbox = Inbox(self._consumer, self._outbox, assembler, hold_chunks=False)
        self._thread = threading.Thread(target=self._listen, name="flmq-replies", daemon=True)
        self._thread.start()
        self.call_roll()

    def call_roll(self) -> None:
        """Ask every client of every site to say hello."""
        body = RollCall(self.job.name, self.job.epoch, self._heartbeat)
        for site in self._sites:
            self._outbox.send(
                Address(TASKS, everybody_key(site)),
                body,
                mandatory=False,
                expiration=_ROLL_CALL_EXPIRES,
                persistent=False,
            )

    def gather(
        self,
        phase: Phase,
        server_round: int,
        asks: Sequence[Ask],
        *,
        timeout: float | None,
        policy: Policy,
        check: Check,
    ) -> Gathered:
        """Ask, and wait until the round closes: see `flmq.round` for when that is.

        ``timeout`` is in seconds. Any number of threads may gather at once.

        Raises:
            ValueError: a client is asked twice.
            BrokerError: the broker no longer lets us read the replies.
        """
        label = f"job {self.job.name}, round {server_round}, {phase.value}"
        opened, now_unix = self._clock(), time.time()
        gather = Gather.create(server_round, phase, asks, policy, check, label=label, now=opened)
        tasks = self._register(gather, asks, timeout, now_unix)
        asked = tuple(sorted(gather.round.tasks))
        self._emit(PhaseOpened(server_round, phase, asked, timeout))
        with self._lock:
            self._report(gather.start())
        for task in tasks:
            self._publish(gather, task, timeout)
        self._wait(gather, None if timeout is None else opened + timeout)
        if self._trouble is not None:
            raise self._trouble
        with self._lock:
            gathered = gather.result()
        self._emit(
            PhaseClosed(
                server_round,
                phase,
                gathered.counts,
                gathered.seconds,
                gathered.bytes_down,
                gathered.bytes_up,
                gathered.reason,
            )
        )
        return gathered

    def end(self, reason: str) -> None:
        """Tell every client that the job is over, and remove its queues."""
        body = JobEnded(self.job.name, self.job.epoch, reason)
        for site in self._sites:
            sent = self._outbox.send(
                Address(TASKS, everybody_key(site)), body, mandatory=False, expiration=_DAY
            )
            sent.outcome.add_done_callback(lambda _: None)
        self._publisher.close()
        self._stop_listening()
        for queue in (replies_queue(self.job.name), presence_queue(self.job.name)):
            self._transport.delete_queue(queue)

    def close(self) -> None:
        """Leave the job as it is, queues and all, for a later start. Idempotent."""
        self._publisher.close()
        self._stop_listening()

    def _stop_listening(self) -> None:
        self._consumer.close()
        self._thread.join()

    # -- asking ------------------------------------------------------------------------------

    def _register(
        self, gather: Gather, asks: Sequence[Ask], timeout: float | None, now_unix: float
    ) -> list[Task]:
        with self._lock:
            key = (gather.server_round, gather.phase)
            call = self._calls[key]
            self._calls[key] += 1
            tasks = [self._task(gather, ask, call, timeout, now_unix) for ask in asks]
            ids = [task.task_id for task in tasks]
            self._tasks.update((task.task_id, (gather, task.client_id)) for task in tasks)
            self._gathers[id(gather)] = (gather, ids)
            while len(self._gathers) > _REMEMBERED_GATHERS:
                self._forget_oldest()
        return tasks

    def _forget_oldest(self) -> None:
        """Forget the oldest phase that is closed."""
        for key, (gather, ids) in self._gathers.items():
            if gather.done.is_set():
                del self._gathers[key]
                for task in ids:
                    self._tasks.pop(task, None)
                return

    def _task(
        self, gather: Gather, ask: Ask, call: int, timeout: float | None, now_unix: float
    ) -> Task:
        task = self.job.task_id(gather.server_round, gather.phase, ask.client_id, call)
        deadline = None if timeout is None else round((now_unix + timeout) * 1000)
        return Task(
            task_id=task,
            job=self.job.name,
            server_round=gather.server_round,
            phase=gather.phase,
            client_id=ask.client_id,
            epoch=self.job.epoch,
            nonce=self.job.nonce(task),
            deadline_unix_ms=deadline,
            timeout_seconds=timeout,
            ins=ask.ins,
        )

    def _publish(self, gather: Gather, task: Task, timeout: float | None) -> None:
        site = self._presence.site(task.client_id)
        sent = self._outbox.send(
            Address(TASKS, task_key(site, task.client_id)),
            task,
            expiration=timeout,
            message_id=task.task_id,
        )
        with self._lock:
            gather.bytes_down += sent.bytes
        sent.outcome.add_done_callback(partial(self._published, gather, task.client_id))

    def _published(self, gather: Gather, client_id: str, sent: Future[PublishOutcome]) -> None:
        """Hear from the publisher's thread what became of a task on its way."""
        error = sent.exception()
        if isinstance(error, TransportClosed):
            return
        event: Event
        if error is not None:
            event = ReplyFailed(client_id, f"the task could not be published: {error}")
        elif sent.result() is PublishOutcome.UNROUTABLE:
            event = TaskUnroutable(client_id)
        else:
            return
        with self._lock:
            self._report(gather.feed(event, self._clock()))

    def _wait(self, gather: Gather, deadline: float | None) -> None:
        try:
            while not gather.done.wait(self._patience(deadline)):
                if deadline is not None and self._clock() >= deadline:
                    self._feed(gather, DeadlinePassed())
                else:
                    self._say_whom_we_wait_for(gather)
        except BaseException:
            self._feed(gather, Stopped("interrupted"))
            raise

    def _patience(self, deadline: float | None) -> float:
        if deadline is None:
            return _STILL_WAITING_EVERY
        return min(_STILL_WAITING_EVERY, max(0.0, deadline - self._clock()))

    def _say_whom_we_wait_for(self, gather: Gather) -> None:
        with self._lock:
            pending = gather.round.pending()
        if pending:
            logger.info(
                "%s: waiting for %d of %d: %s",
                gather.round.label,
                len(pending),
                len(gather.round.tasks),
                ", ".join(pending[:10]) + (" ..." if len(pending) > 10 else ""),
            )

    def _feed(self, gather: Gather, event: Event) -> None:
        with self._lock:
            self._report(gather.feed(event, self._clock()))

    def _report(self, outcomes: Sequence[ClientOutcome]) -> None:
        for outcome in outcomes:
            self._emit(outcome)

    # -- hearing -----------------------------------------------------------------------------

    def _listen(self) -> None:
        while True:
            try:
                letter = self._inbox.receive(timeout=1.0)
            except TransportClosed:
                return
            except BrokerError as error:
                self._give_up(error)
                return
            if letter is not None:
                self._hear_safely(letter)
            self._presence.tick()

    def _give_up(self, error: BrokerError) -> None:
        """Without replies no round can close: end those that are open, and say why."""
        self._trouble = error
        with self._lock:
            for gather, _ in self._gathers.values():
                self._report(gather.feed(Stopped(str(error)), self._clock()))

    def _hear_safely(self, letter: Letter) -> None:
        try:
            self._hear(letter)
        except TransportClosed:
            return
        except Exception as error:
            logger.exception("job %s: a message could not be dealt with", self.job.name)
            self._inbox.bury(letter, f"{type(error).__name__}: {error}")

    def _hear(self, letter: Letter) -> None:
        match letter.body:
            case Presence() as presence:
                self._presence.hear(presence)
                self._inbox.ack(letter)
            case Reply() as reply:
                self._hear_reply(letter, reply)
            case other:
                self._inbox.bury(letter, f"a server takes no {type(other).__name__}")

    def _hear_reply(self, letter: Letter, reply: Reply) -> None:
        with self._lock:
            known = self._tasks.get(reply.task_id)
        if known is None:
            self._refuse(letter, reply, f"answers a task that nobody sent ({reply.task_id})")
            return
        gather, asked = known
        problem = self._identity_problem(reply, gather, asked)
        if problem is not None:
            self._refuse(letter, reply, problem)
            return
        self._presence.seen(reply.client_id)
        event = gather.judge(reply)
        taken = Taken(reply, letter.bytes, self._clock())
        with self._lock:
            outcomes = gather.take(event, taken)
            self._report(outcomes)
        for outcome in outcomes:
            if outcome.client_id == reply.client_id and outcome.word in _RECEIPTS:
                self._send_receipt(reply, _RECEIPTS[outcome.word], outcome.reason, gather)
        self._inbox.ack(letter)

    def _identity_problem(self, reply: Reply, gather: Gather, asked: str) -> str | None:
        """Why this reply is not from whom it says, to what it says; None if it is."""
        if reply.job != self.job.name or reply.phase is not gather.phase:
            return "names another job or phase than its task"
        if reply.client_id != asked:
            return f"answers the task of {asked}"
        if reply.nonce != self.job.nonce(reply.task_id):
            return "does not have its task's nonce"
        return None

    def _refuse(self, letter: Letter, reply: Reply, problem: str) -> None:
        self._send_receipt(reply, ReceiptOutcome.REJECTED, problem)
        self._inbox.bury(letter, f"a reply of {reply.client_id} {problem}")

    def _send_receipt(
        self,
        reply: Reply,
        outcome: ReceiptOutcome,
        reason: str,
        gather: Gather | None = None,
    ) -> None:
        late_by = 0.0
        if outcome is ReceiptOutcome.LATE and gather is not None and gather.closed is not None:
            late_by = self._clock() - gather.closed
        receipt = Receipt(
            task_id=reply.task_id,
            job=self.job.name,
            server_round=reply.server_round,
            phase=reply.phase,
            client_id=reply.client_id,
            outcome=outcome,
            reason=reason,
            late_by_seconds=late_by,
        )
        site = self._presence.site(reply.client_id)
        self._outbox.send(
            Address(TASKS, task_key(site, reply.client_id)),
            receipt,
            mandatory=False,
            expiration=_DAY,
        )
