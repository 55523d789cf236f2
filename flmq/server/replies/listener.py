"""Listen to a job's queues: presence, replies and the blobs after them, requests for models.

One thread takes every message, in order. It may wait for the publisher; the publisher never waits
for it. Complete replies go to the reply loop.
"""

from __future__ import annotations

import threading
from hmac import compare_digest

from flmq.common.errors import (
    BrokerError,
    FlmqError,
    PeerError,
    RunError,
    StoredDataError,
    TransportClosed,
)
from flmq.common.failure_text import named_error
from flmq.common.logger import logger, logging_about
from flmq.messaging import Inbox, Incoming
from flmq.round import Outcome
from flmq.server.job.context import JobContext
from flmq.server.models.published_models import PublishedModels
from flmq.server.presence.doorkeeper import Doorkeeper
from flmq.server.replies.outcomes import NobodyListens
from flmq.server.replies.receipts import Receipts
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.replies.senders import Senders
from flmq.server.replies.sums import identity_problem, largest_sum
from flmq.server.replies.uploading import Uploading
from flmq.wire import (
    AggregatorReport,
    BlobChunk,
    Failure,
    FailureKind,
    ModelRequest,
    PartialSum,
    Presence,
    Reply,
)

__all__ = ["Listener"]

_IDLE = 1.0
"""Seconds to wait for a message when there is no other work."""
_BUSY = 0.02
"""Seconds to wait for a message while another thread deals with earlier ones."""
_TOGETHER = 0.1
"""Seconds after which what came is dealt with, though more messages keep coming."""


class Listener:
    """The thread that receives clients' messages."""

    def __init__(
        self,
        context: JobContext,
        inbox: Inbox,
        loop: ReplyLoop,
        uploading: Uploading,
        models: PublishedModels,
        doorkeeper: Doorkeeper,
        receipts: Receipts,
    ) -> None:
        """Prepare the thread: `start` starts it, and closing the inbox ends it."""
        self._job = context.job
        self._inbox = inbox
        self._loop = loop
        self._uploading = uploading
        self._models = models
        self._presence = context.presence
        self._aggregators = context.aggregators
        self._doorkeeper = doorkeeper
        self._receipts = receipts
        self._senders = Senders(context, inbox, loop.tasks)
        self._clock = context.clock
        self.turned = context.clock()
        """When the thread last came round, by the clock."""
        self.is_ending = False
        """Whether the inbox's consumer is being closed on purpose, so that the thread ends."""
        self._thread = threading.Thread(target=self._run, name="flmq-replies", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the thread to end; close the inbox's consumer first."""
        self._thread.join()
        self._doorkeeper.tick()  # a short run may end before the first tick
        self._senders.tick()
        self._uploading.close()

    def _run(self) -> None:
        with logging_about(job=self._job.name, run=self._job.run_id):
            self._listen()

    def _listen(self) -> None:
        try:
            self._hear_all()
        except TransportClosed as error:
            if not self.is_ending:
                self._give_up(error)
        except FlmqError as error:
            # Fenced, or reading or writing fails. Unacked messages are delivered again, to the
            # server that is then in charge.
            self._give_up(error)
        except BaseException as error:
            # Whatever the error, the run must not wait forever for replies that nobody receives.
            logger.exception("job %s: replies can no longer be taken in", self._job.name)
            self._give_up(NobodyListens(error))

    def _hear_all(self) -> None:
        next_tick, patience, since = 0.0, 0.0, 0.0
        while True:
            self.turned = self._clock()
            is_idle = self._loop.is_idle
            wait = _IDLE if is_idle else patience
            incoming = self._inbox.receive(timeout=0.0 if self._doorkeeper.greet() else wait)
            if is_idle:
                since = self._clock()
            if incoming is not None:
                with logging_about(incoming.body):
                    self._hear_safely(incoming)
            if self._loop.is_full:
                self._loop.perform()  # receive no more than can be dealt with
            elif incoming is None or self._clock() - since >= _TOGETHER:
                patience = 0.0 if self._loop.perform_if_free() else _BUSY
            if self._clock() >= next_tick:
                next_tick = self._clock() + 1.0
                self._presence.tick()
                self._doorkeeper.tick()
                self._senders.tick()
                self._uploading.give_up_stale()

    def _give_up(self, error: FlmqError) -> None:
        """End all open rounds because of ``error``: without replies they cannot close."""
        self._presence.give_up(error)
        self._loop.give_up(error)

    def _hear_safely(self, incoming: Incoming) -> None:
        try:
            self._hear(incoming)
        except (BrokerError, RunError, StoredDataError, OSError):
            raise  # the server's own trouble: the message is not to blame
        except PeerError as error:
            self._inbox.dead_letter(incoming, str(error))
        except Exception as error:
            logger.exception("job %s: a message could not be dealt with", self._job.name)
            self._inbox.dead_letter(incoming, named_error(error))

    def _hear(self, incoming: Incoming) -> None:
        if self._senders.refuse(incoming):
            return
        match incoming.body:
            case BlobChunk() as chunk:
                self._uploading.hear_chunk(chunk, incoming)
                return
            case Presence() as presence:
                self._doorkeeper.hear(presence, incoming.delivery.message.correlation_id)
            case ModelRequest() as request:
                self._send_model(request)
            case Reply() as reply:
                self._hear_reply(incoming, reply)
                return
            case PartialSum() as partial:
                self._hear_sum(incoming, partial)
                return
            case AggregatorReport() as report:
                self._aggregators.hear(report)
            case other:
                self._inbox.dead_letter(incoming, f"a server takes no {type(other).__name__}")
                return
        self._inbox.ack(incoming)

    def _send_model(self, request: ModelRequest) -> None:
        """Send a requested model: a shared one again to everybody, a client's own to it alone."""
        client_id = request.client_id
        site = self._presence.site(client_id)
        if self._models.publish_again(request.digest, site):
            return
        sent = self._models.send_own(request.digest, client_id, site, with_tasks=request.with_tasks)
        with self._loop.lock:
            for phase in self._loop.tasks.open_phases():
                if sent and phase.round.expects(client_id):
                    phase.bytes_down += sent
                    return

    # -- replies -----------------------------------------------------------------------------

    def _hear_reply(self, incoming: Incoming, reply: Reply) -> None:
        """Deal with a reply, or with the envelope of a reply whose parameters follow."""
        problem = self._identity_problem(reply)
        if problem is not None:
            if self._is_askeds_own(reply):
                self._receipts.send(reply, Outcome.REJECTED, problem)
            self._inbox.dead_letter(incoming, f"a reply of {reply.client_id} {problem}")
            return
        self._presence.seen(reply.client_id)
        if isinstance(reply.res, Failure) and reply.res.kind is FailureKind.SETTLED:
            self._hear_settled(reply)
            self._inbox.ack(incoming)
        elif reply.blob is not None and self._uploading.is_wanted(reply):
            self._uploading.begin(reply, incoming)
        else:
            encoded = bytes(incoming.encoded)
            self._loop.take(reply, incoming.bytes, incoming, encoded=encoded)

    def _hear_sum(self, incoming: Incoming, partial: PartialSum) -> None:
        """Deal with a partial sum, or with the envelope of one whose tensors follow."""
        tasks = self._loop.tasks
        found = tasks.order_of(partial.task_id)
        if found is None:
            if problem := identity_problem(partial, self._job, None):
                self._inbox.dead_letter(
                    incoming, f"a partial sum of {partial.site} answers no order here: {problem}"
                )
                return
            long_over = "late, dropped: its round is long over"
            self._receipts.send_to_aggregator(partial, partial.site, Outcome.LATE, long_over)
            self._inbox.ack(incoming)
            return
        phase = tasks.phase(found[0])
        problem = identity_problem(partial, self._job, phase)
        if problem or partial.blob is None:
            self._loop.take_sum(partial, incoming.bytes, incoming, problem=problem)
            return
        order = None if phase is None else phase.orders.get(partial.task_id)
        if phase is None or order is None or phase.done.is_set():
            self._uploading.begin_sum(partial, None, incoming)
        else:
            self._uploading.begin_sum(partial, largest_sum(phase, order), incoming)

    def _hear_settled(self, reply: Reply) -> None:
        """Deal with a client's statement that a task is already settled.

        Ignore it if no reply is awaited: the broker only delivered the task twice. Otherwise
        the server lost the reply, or repeats a call that no journal keeps: ask the client again.
        """
        found = self._loop.tasks.phase_of(reply.task_id)
        if found is None:
            return
        phase, ask = found
        with self._loop.lock:
            if not phase.round.expects(ask) or ask in phase.anew:
                return
            phase.anew.add(ask)
            phase.unrouted.add(ask)
        logger.warning(
            "%s: client %s was told before that its reply was taken, and there is no record of it "
            "here (an earlier copy of the run's folder, or a call that is made again): it does the "
            "task anew",
            phase.label,
            reply.client_id,
        )

    def _has_nonce(self, reply: Reply) -> bool:
        """Return whether the reply has its task's nonce: its sender has then read the task."""
        return compare_digest(reply.nonce, self._job.nonce(reply.task_id))

    def _is_askeds_own(self, reply: Reply) -> bool:
        """Return whether the reply was sent by the client that it names, which was asked."""
        found = self._loop.tasks.asked(reply.task_id)
        return found is not None and found[1] == reply.client_id and self._has_nonce(reply)

    def _identity_problem(self, reply: Reply) -> str | None:
        """Return why the reply's client, job, phase or task is false; None: they are right."""
        found = self._loop.tasks.asked(reply.task_id)
        if not self._has_nonce(reply):
            if found is None:
                return f"answers a task that nobody sent ({reply.task_id})"
            return "does not have its task's nonce"
        if found is None:
            return None  # the phase is forgotten here, but the nonce proves that the task is ours
        key, asked = found
        if reply.job != self._job.name or reply.phase is not key.phase:
            return "names another job or phase than its task"
        return None if reply.client_id == asked else f"answers the task of {asked}"
