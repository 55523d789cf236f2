"""Hearing a job's queues: presence, replies and the blobs that follow them, requests for models.

One thread takes everything, in order. It may wait for the publisher, never the other way round.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from hmac import compare_digest

from flmq.common.errors import BrokerError, FlmqError, RunError, StoredDataError, TransportClosed
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of
from flmq.journal.records import PhaseKey
from flmq.messaging import Inbox, Incoming, Sender
from flmq.observe.events import RunEvent
from flmq.round import Outcome, Stopped
from flmq.server.asks.job import Job
from flmq.server.asks.phase_in_flight import PhaseInFlight
from flmq.server.asks.published_models import PublishedModels
from flmq.server.asks.task_table import TaskTable
from flmq.server.presence.doorkeeper import Doorkeeper
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.intake import Intake
from flmq.server.replies.late_replies import LateReplyDesk
from flmq.server.replies.receipts import Receipts
from flmq.server.replies.uploads import Spoiled, Uploaded, Uploads
from flmq.server.resumption.job_journal import JobJournal
from flmq.wire import (
    BlobChunk,
    Failure,
    FailureKind,
    ModelRequest,
    Presence,
    Reply,
    size_of,
    task_of_upload,
)

__all__ = ["Listener", "NobodyListens"]

_SILENCE = 60.0
"""Seconds after its last chunk at which a late reply is given up that is to count."""
_REMEMBERED = 1000
"""Replies that were given up, and whose clients are told so if they go on sending."""


class NobodyListens(RunError):
    """The thread that hears clients came to its end by a fault."""

    def __init__(self, cause: BaseException) -> None:
        """Name the ``cause``."""
        super().__init__(
            f"replies can no longer be taken in ({type(cause).__name__}: {cause}): please report "
            "this with the log; where the job has a journal, start the server again to go on"
        )


class Listener:
    """The thread that hears what clients say."""

    def __init__(
        self,
        job: Job,
        inbox: Inbox,
        sender: Sender,
        table: TaskTable,
        presence: PresenceWatcher,
        doorkeeper: Doorkeeper,
        models: PublishedModels,
        uploads: Uploads,
        late_replies: LateReplyDesk,
        emit: Callable[[RunEvent], None],
        *,
        job_journal: JobJournal | None = None,
    ) -> None:
        """Prepare; `start` begins to listen, and the inbox's closing ends it."""
        self._job = job
        self._inbox = inbox
        self._table = table
        self._presence = presence
        self._doorkeeper = doorkeeper
        self._models = models
        self._uploads = uploads
        self._late_replies = late_replies
        self._emit = emit
        self._clock = time.monotonic
        self._receipts = Receipts(job, sender, presence)
        self.intake = Intake(inbox, table, uploads, late_replies, self._receipts, emit, job_journal)
        self._announced: dict[str, tuple[Reply, float]] = {}
        """Replies that are on their way here, by task, and when they were last heard of."""
        self._given_up: OrderedDict[str, Reply] = OrderedDict()
        self.trouble: FlmqError | None = None
        """Why nothing is heard any more, where that is so."""
        self.is_ending = False
        """Whether the inbox's consumer is being closed, for nothing more is to be heard."""
        self._thread = threading.Thread(target=self._listen, name="flmq-replies", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self) -> None:
        """Wait for the end, which follows the closing of the inbox's consumer."""
        self._thread.join()
        self._doorkeeper.tick()  # a short run may end before anybody was named
        self._uploads.close()

    def _listen(self) -> None:
        try:
            self._hear_all()
        except TransportClosed as error:
            if not self.is_ending:
                self._give_up(error)
        except FlmqError as error:
            # Fenced, or nothing can be read or written any more. What is un-acked comes again, to
            # the server that is in charge then.
            self._give_up(error)
        except BaseException as error:
            # Whatever it is, the run must not wait for ever for what nobody hears: also sys.exit()
            # in a strategy's code that was called here.
            logger.exception("job %s: replies can no longer be taken in", self._job.name)
            self._give_up(NobodyListens(error))

    def _hear_all(self) -> None:
        next_tick = 0.0
        while True:
            incoming = self._inbox.receive(timeout=self.intake.patience)
            if incoming is not None:
                self._hear_safely(incoming)
            if incoming is None or self.intake.is_full:
                self.intake.flush()
            self.intake.take_early()
            if self._clock() >= next_tick:
                next_tick = self._clock() + 1.0
                self._presence.tick()
                self._doorkeeper.tick()
                self._give_up_uploads()

    def _give_up(self, error: FlmqError) -> None:
        """Without replies no round can close: end those that are open, and say why."""
        self.trouble = error
        self._presence.give_up(error)
        with self._table.lock:
            for gather in self._table.open_gathers():
                for outcome in gather.feed(Stopped(str(error)), self._clock()):
                    self._emit(outcome)

    def _hear_safely(self, incoming: Incoming) -> None:
        try:
            self._hear(incoming)
        except (BrokerError, RunError, StoredDataError, OSError):
            raise  # our own trouble, and nobody's message is to blame
        except Exception as error:
            logger.exception("job %s: a message could not be dealt with", self._job.name)
            self._inbox.dead_letter(incoming, f"{type(error).__name__}: {error}")

    def _hear(self, incoming: Incoming) -> None:
        match incoming.body:
            case BlobChunk() as chunk:
                self._hear_chunk(incoming, chunk)
                return
            case Presence() as presence:
                self._doorkeeper.hear(presence, incoming.delivery.message.correlation_id)
            case ModelRequest() as request:
                self._send_model(request)
            case Reply() as reply:
                self._hear_reply(incoming, reply)
                return
            case other:
                self._inbox.dead_letter(incoming, f"a server takes no {type(other).__name__}")
                return
        self._inbox.ack(incoming)

    def _send_model(self, request: ModelRequest) -> None:
        """Send a model to who asks for it: its own to a client, once more to all what is shared."""
        if self._models.publish_again(request.digest):
            return
        client_id = request.client_id
        sent = self._models.send_own(request.digest, client_id, self._presence.site(client_id))
        with self._table.lock:
            for gather in self._table.open_gathers():
                if sent and gather.expects(client_id):
                    gather.bytes_down += sent
                    return

    # -- replies -----------------------------------------------------------------------------

    def _hear_reply(self, incoming: Incoming, reply: Reply) -> None:
        """Deal with a reply, or with the envelope of one whose parameters follow."""
        awaited = self.intake.awaits(reply.task_id)
        known = self._table.find(reply.task_id)
        problem = self._identity_problem(reply, known, awaited)
        if problem is not None:
            if self._is_askeds_own(reply, known):
                self._receipts.send(reply, Outcome.REJECTED, problem)
            self._inbox.dead_letter(incoming, f"a reply of {reply.client_id} {problem}")
            return
        self._presence.seen(reply.client_id)
        if isinstance(reply.res, Failure) and reply.res.kind is FailureKind.SETTLED:
            self._hear_settled(reply, known)
            self._inbox.ack(incoming)
            return
        if reply.blob is None or not (awaited or self._would_count(reply, known)):
            self.intake.take(reply, incoming.bytes, incoming)
            return
        self._announced[reply.task_id] = reply, self._clock()
        self._given_up.pop(reply.task_id, None)
        self._take_upload(
            reply.task_id,
            self._uploads.begin(reply, reply.blob, incoming.bytes, _sent_to(reply, known)),
            incoming,
        )

    def _hear_settled(self, reply: Reply, known: tuple[PhaseInFlight, str] | None) -> None:
        """Deal with a client's word that a task is settled, which may be asked here all the same.

        The broker may have delivered it once more. But where nothing has come of it here, this
        server has lost what an earlier one took in, or asks anew what no journal keeps.
        """
        if known is None:
            return
        gather, client_id = known
        with self._table.lock:
            if not gather.expects(client_id) or client_id in gather.anew:
                return
            gather.anew.add(client_id)
            gather.unrouted.add(client_id)
        logger.warning(
            "%s: client %s was told before that its reply was taken, and there is no record of it "
            "here (an earlier copy of the run's folder, or a call that is made again): it does the "
            "task anew",
            gather.round.label,
            client_id,
        )

    def _hear_chunk(self, incoming: Incoming, chunk: BlobChunk) -> None:
        task_id = task_of_upload(chunk.name)
        announced = self._announced.get(task_id)
        if announced is not None:
            self._announced[task_id] = announced[0], self._clock()
        reply = self._given_up.pop(task_id, None)
        if reply is not None:
            # Its client lives, and must know that it need not send it again.
            spoiled = Spoiled(reply, "its round closed before all of it had come")
            self.intake.take_spoiled(spoiled, None)
        if self._may_announce(task_id) and not self._uploads.is_open(chunk.name):
            self._uploads.hold(chunk.name, chunk.index, chunk.data)
            self._inbox.ack(incoming)
        else:
            upload = self._uploads.add(chunk.name, chunk.index, chunk.data)
            self._take_upload(task_id, upload, incoming)

    def _take_upload(
        self, task_id: str, upload: Uploaded | Spoiled | None, incoming: Incoming
    ) -> None:
        if upload is None:
            self._inbox.ack(incoming)
            return
        self._announced.pop(task_id, None)
        match upload:
            case Uploaded(reply, size):
                self.intake.take(reply, size, incoming)
            case Spoiled() as spoiled:
                self.intake.take_spoiled(spoiled, incoming)

    def _would_count(self, reply: Reply, known: tuple[PhaseInFlight, str] | None) -> bool:
        """Whether this reply, once it is all here, may settle its task or count later."""
        expected = known is not None and known[0].expects(reply.client_id)
        return expected or self._late_replies.wants(reply)

    def _may_announce(self, task_id: str) -> bool:
        """Whether a reply to this task may be on its way that would count."""
        awaited = self.intake.awaits(task_id)
        known = self._table.find(task_id)
        if known is None:
            return awaited is not None or self._late_replies.may_want()
        gather, client_id = known
        return gather.expects(client_id) or self._late_replies.may_count(gather, client_id)

    def _give_up_uploads(self) -> None:
        """Discard what is on its way and will not count any more."""
        self._uploads.discard_if(self._is_over)
        for task_id in [task_id for task_id in self._announced if self._is_over(task_id)]:
            self._given_up[task_id] = self._announced.pop(task_id)[0]
        while len(self._given_up) > _REMEMBERED:
            self._given_up.popitem(last=False)

    def _is_over(self, task_id: str) -> bool:
        awaited = self.intake.awaits(task_id)
        known = self._table.find(task_id)
        over = awaited is None if known is None else known[0].done.is_set()
        announced = self._announced.get(task_id)
        if not over or announced is None:
            return over
        reply, heard = announced
        return self._clock() - heard > _SILENCE or not self._late_replies.wants(reply)

    def _has_nonce(self, reply: Reply) -> bool:
        """Whether a reply's sender has read its task."""
        return compare_digest(reply.nonce, self._job.nonce(reply.task_id))

    def _is_askeds_own(self, reply: Reply, known: tuple[PhaseInFlight, str] | None) -> bool:
        """Whether a receipt would go to who sent the reply, and not to whom it only names."""
        asked = known is not None and known[1] == reply.client_id
        return asked and self._has_nonce(reply)

    def _identity_problem(
        self,
        reply: Reply,
        known: tuple[PhaseInFlight, str] | None,
        awaited: tuple[PhaseKey, str] | None,
    ) -> str | None:
        """Why this reply is not from whom it says, to what it says; None if it is."""
        if not self._has_nonce(reply):
            if known is None:
                return f"answers a task that nobody sent ({reply.task_id})"
            return "does not have its task's nonce"
        if known is not None:
            phase, asked = known[0].phase, known[1]
        elif awaited is not None:
            phase, asked = awaited[0].phase, awaited[1]
        else:
            return None  # of a phase that is forgotten here, but of ours: the nonce says so
        if reply.job != self._job.name or reply.phase is not phase:
            return "names another job or phase than its task"
        if reply.client_id != asked:
            return f"answers the task of {asked}"
        return None


def _sent_to(reply: Reply, known: tuple[PhaseInFlight, str] | None) -> int | None:
    """Bytes of parameters that a reply's client was sent with its task; None: not known here."""
    ask = None if known is None else known[0].asks.get(reply.client_id)
    sent = None if ask is None else parameters_of(ask.ins)
    return None if sent is None else size_of(sent)
