"""The coordinator: in charge of a job; opens phases, has them asked, and waits until they close."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import wait
from dataclasses import replace
from functools import partial

from flmq.common.crashpoints import crash_point
from flmq.common.logger import logger
from flmq.common.phase import Phase
from flmq.journal.records import PhaseKey
from flmq.messaging import Inbox, Sender
from flmq.observe.events import ClientOutcome, PhaseClosed, PhaseOpened, RunEvent
from flmq.server.asks.job import Job
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.asks.phase_in_flight import PhaseInFlight, PhaseResult, Request
from flmq.server.asks.published_models import PublishedModels
from flmq.server.asks.task_publisher import TaskPublisher
from flmq.server.asks.task_table import TaskTable
from flmq.server.asks.waiting import Waiter
from flmq.server.presence.doorkeeper import Doorkeeper
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.late import LateReplyPolicy
from flmq.server.replies.late_replies import LateReplyDesk
from flmq.server.replies.listener import Listener
from flmq.server.replies.uploads import Uploads
from flmq.server.resumption.job_journal import JobJournal, Planned
from flmq.transport import (
    TASKS,
    Address,
    Transport,
    everybody_key,
    models_topology,
    presence_queue,
    replies_queue,
    uploads_queue,
)
from flmq.wire import BlobRef, JobEnded, RollCall
from flmq.wire.bounds import MAX_PRESENCE_BYTES

__all__ = ["Coordinator"]

_PREFETCH = 48
"""Un-acked messages, a third of them of 1 MiB: held whatever the number of clients."""
_ROLL_CALL_EXPIRES = 30.0
_DAY = 24 * 3600.0


class Coordinator:
    """In charge of one job on one transport."""

    def __init__(
        self,
        transport: Transport,
        job: Job,
        presence: PresenceWatcher,
        emit: Callable[[RunEvent], None],
        options: CoordinatorOptions,
        job_journal: JobJournal | None = None,
        late_policy: LateReplyPolicy | None = None,
    ) -> None:
        """Prepare; `start` takes charge. With a ``job_journal`` the job survives its server.

        With ``late_policy`` late replies count in later rounds, in phases that ask for that.
        """
        self._job_journal = job_journal
        self.job = job
        self._transport = transport
        self._presence = presence
        self._emit = emit
        self._options = options
        self._codec = options.codec
        self._table = TaskTable()
        self._late_replies = LateReplyDesk(job, self._table, job_journal, late_policy)
        self._clock = time.monotonic
        self._told = (0, 0)

    def start(self) -> None:
        """Begin to hear clients, and call the roll. The job must be ours (`take_job`).

        Raises:
            BrokerError: the broker refuses or cannot be reached.
        """
        name, options = self.job.name, self._options
        self._publisher = self._transport.publisher()
        self._sender = Sender(self._publisher)
        declare = partial(self._transport.declare, models_topology())
        self._models = PublishedModels(self._sender, name, declare)
        self._consumer = self._transport.consumer(
            [replies_queue(name), uploads_queue(name), presence_queue(name)], prefetch=_PREFETCH
        )
        self._uploads = Uploads(
            options.spool_dir,
            options.max_reply_bytes,
            codec=self._codec,
            base_of=self._models.at_hand,
        )
        self._task_publisher = TaskPublisher(
            self.job,
            self._sender,
            self._table,
            self._presence,
            self._emit,
            codec=self._codec,
            heartbeat=options.heartbeat,
        )
        self._listener = Listener(
            self.job,
            Inbox(
                self._consumer,
                self._sender,
                largest={presence_queue(name): MAX_PRESENCE_BYTES},
            ),
            self._sender,
            self._table,
            self._presence,
            Doorkeeper(
                self.job,
                self._sender,
                self._presence,
                self._emit,
                heartbeat=options.heartbeat,
                allowed=options.clients_allowed,
                clock=self._clock,
            ),
            self._models,
            self._uploads,
            self._late_replies,
            self._emit,
            job_journal=self._job_journal,
        )
        self._waiter = Waiter(
            self._table,
            self._presence,
            self._task_publisher,
            self._uploads,
            self._listener,
            self._job_journal,
            self._emit,
        )
        self._listener.start()
        self.discover_clients()

    def discover_clients(self) -> None:
        """Ask every client of every site to say hello."""
        body = RollCall(self.job.name, self.job.epoch, self._options.heartbeat, self.job.run_id)
        for site in self._options.sites:
            self._sender.send(
                Address(TASKS, everybody_key(site)),
                body,
                mandatory=False,
                expiration=_ROLL_CALL_EXPIRES,
                persistent=False,
            )

    def gather(self, request: Request) -> PhaseResult:
        """Ask, and wait until the round closes: see `flmq.round` for when that is.

        A phase of the job's journal that was open when a server died goes on where it was: what
        had come counts, and only the others are asked again. Any number of threads may gather at
        once.

        Raises:
            ValueError: a client is asked twice.
            BrokerError: the broker no longer lets us read the replies.
            ModelTooLarge: the stream of models cannot keep the model.
            Fenced: another server took charge of the job.
        """
        phase, server_round = request.phase, request.server_round
        label = f"job {self.job.name}, round {server_round}, {phase.value}"
        gather = PhaseInFlight.create(request, label=label, now=self._clock())
        self._emit(
            PhaseOpened(server_round, phase, tuple(sorted(gather.round.tasks)), request.timeout)
        )
        refs = self._models.refer(request.asks)
        try:
            self._run(gather, request, refs)
        finally:
            self._models.release(refs.values())
        if self._listener.trouble is not None:
            raise self._listener.trouble
        with self._table.lock:
            gathered = gather.result()
        if gather.key is not None and self._job_journal is not None:
            self._job_journal.close_phase(gather.key, gathered, gather.round.outcomes())
            crash_point("server.phase_closed")
        self._say_closed(gather, gathered)
        # What comes from here on is late for good, whatever server hears it.
        gather.final = True
        return self._with_losses(gathered)

    @property
    def losses(self) -> tuple[int, int]:
        """Replies that broke off on their way here, and chunks that nobody waited for, so far."""
        return self._uploads.incomplete, self._uploads.stray_chunks

    def _with_losses(self, gathered: PhaseResult) -> PhaseResult:
        """What was gathered, and what was lost on the way since the phase before."""
        with self._table.lock:
            (incomplete, stray), before = self.losses, self._told
            self._told = incomplete, stray
        return replace(
            gathered,
            incomplete_uploads=incomplete - before[0],
            stray_chunks=stray - before[1],
        )

    def planned(self, phase: Phase, server_round: int) -> Planned | None:
        """Whom an earlier server of this job asked what, in the phase that comes next."""
        if self._job_journal is None:
            return None
        call = self._table.peek_call(server_round, phase, own=True)
        return self._job_journal.planned(PhaseKey(server_round, phase, call))

    def _run(self, gather: PhaseInFlight, request: Request, refs: dict[str, BlobRef]) -> None:
        """Step by step; a kill at any point repeats what has no effect twice."""
        # Step 1: enter the tasks; in a journal, before anybody hears of them.
        own = self._job_journal is not None and request.state is not None
        call = self._table.next_call(gather.server_round, gather.phase, own=own)
        tasks = self._task_publisher.tasks(request, call, refs)
        elapsed = 0.0
        if self._job_journal is not None and request.state is not None:
            gather.key = PhaseKey(gather.server_round, gather.phase, call)
            before = self._job_journal.open_phase(gather.key, tasks, request)
            if before is not None:
                self._task_publisher.resume(gather)
                elapsed = before
            crash_point("server.phase_planned")
        gather.behind = self._table.behind(task.client_id for task in tasks)
        if gather.behind:
            said = [f"{client} ({what})" for client, what in sorted(gather.behind.items())]
            logger.warning(
                "%s: asked though they have not answered before, and may still be at work: %s",
                gather.round.label,
                ", ".join(said[:10]) + (" ..." if len(said) > 10 else ""),
            )
        with self._table.lock:
            self._report(gather.start())
        # Step 2: count what had come before: late replies of earlier rounds, and what an earlier
        # server had taken in. The listener knows of the phase only then: a second answer of a
        # client must not count before the first, which is written down.
        self._late_replies.admit(gather)
        if gather.key is not None:
            self._listener.intake.replay(gather, gather.key)
        self._table.add(gather, [(task.task_id, task.client_id) for task in tasks])
        if self._job_journal is not None:
            self._job_journal.opened(tasks)
        if gather.key is not None:
            self._listener.intake.replay_rest(gather, gather.key)
        pending = set(gather.round.pending())
        tasks = [task for task in tasks if task.client_id in pending]
        # Step 3: publish the model, confirmed, and then the tasks that name it.
        if tasks:
            gather.bytes_down += self._models.publish(refs.values())
            crash_point("server.model_published")
        timeout = None if request.timeout is None else max(0.0, request.timeout - elapsed)
        deadline = None if timeout is None else self._clock() + timeout
        for task in tasks:
            self._task_publisher.publish(gather, task, timeout)
        crash_point("server.tasks_published")
        # Step 4: wait for replies, which the listener takes in.
        self._waiter.wait(gather, tasks, deadline, elapsed)

    def end(self, reason: str, *, patient: bool = True) -> None:
        """Tell every client that the job is over, and remove its queues.

        Where the broker is away, this waits for it; if not ``patient``, for some seconds only, and
        the queues stay until they expire.
        """
        body = JobEnded(self.job.name, self.job.epoch, reason, self.job.run_id)
        told = [
            self._sender.send(
                Address(TASKS, everybody_key(site)), body, mandatory=False, expiration=_DAY
            ).outcome
            for site in self._options.sites
        ]
        if patient:
            wait(told)
        self.close()
        if any(not each.done() or each.exception() is not None for each in told):
            logger.warning("job %s: no broker to tell that it is over", self.job.name)
            return
        for queue in (replies_queue, uploads_queue, presence_queue):
            self._transport.delete_queue(queue(self.job.name))

    def close(self) -> None:
        """Leave the job as it is, queues and all, for a later start. Idempotent."""
        self._publisher.close()
        self._listener.is_ending = True
        self._consumer.close()
        self._listener.join()

    def _say_closed(self, gather: PhaseInFlight, gathered: PhaseResult) -> None:
        self._emit(
            PhaseClosed(
                gather.server_round,
                gather.phase,
                gathered.counts,
                gathered.seconds,
                gathered.bytes_down,
                gathered.bytes_up,
                gathered.reason,
            )
        )

    def _report(self, outcomes: Sequence[ClientOutcome]) -> None:
        for outcome in outcomes:
            self._emit(outcome)
