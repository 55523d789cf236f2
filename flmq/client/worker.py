"""The worker: takes tasks from its clients' queues, has them done, publishes the replies.

Steps of a task: receive → (train) → publish, confirmed → mark done → ack. A kill before the ack
brings the task again; the reply's task id makes a repetition harmless. Training runs on the
threads of `run`, never on the one that receives: hellos, heartbeats and receipts go on meanwhile.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from flmq import __version__
from flmq.client.answering import answer_task, failure
from flmq.client.cache import DEFAULT_CACHE_BYTES, FolderCache, MemoryCache, ModelCache
from flmq.client.context import ClientContext
from flmq.client.factory import Clients, ClientSource
from flmq.client.models import ModelReader
from flmq.client.taskbook import Admission, TaskBook
from flmq.common.errors import ClientIdInUse, InvalidReturnValue, ResourceLocked, TransportClosed
from flmq.common.logger import logger
from flmq.common.names import check_client_id
from flmq.common.typing import (
    EvaluateIns,
    FitIns,
    FitRes,
    GetParametersRes,
    Parameters,
    ReconnectIns,
    Scalar,
)
from flmq.post import Inbox, Letter, Outbox, Sent
from flmq.transport import (
    DEFAULT_SITE,
    PRESENCE,
    REPLIES,
    Address,
    Delivery,
    PublishOutcome,
    Transport,
    client_queue,
    client_topology,
    federation_topology,
    presence_key,
    reply_key,
)
from flmq.wire import (
    INLINE_BYTES,
    Assembler,
    FailureKind,
    JobEnded,
    ModelRequest,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    Res,
    RollCall,
    Task,
    refer,
)

__all__ = ["Worker", "WorkerOptions"]

_PREFETCH = 2048
"""Un-acked messages of 1 MiB: what waits, and the chunks of what is being done."""
_MAX_TASK_BYTES = 2**31 - 1
"""Protocol buffers end there."""


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """How a worker works."""

    site: str = DEFAULT_SITE
    state_dir: Path | None = None
    """A folder for the clients' own durable state; each job and client id gets one in it."""
    once: bool = False
    """Whether to stop when the first job ends that a server greeted us for."""
    heartbeat: float = 30.0
    """Seconds between heartbeats, unless a server asks for more."""
    threads: int = 1
    """Tasks done at a time; more than one only makes sense for several clients."""
    keep_clients: bool = True
    """Whether a client lives as long as its job, or is made for each task."""
    cache_dir: Path | None = None
    """A folder for models, which workers of one machine may share; None: in memory."""
    cache_bytes: int = DEFAULT_CACHE_BYTES
    """Models that are kept, in all."""
    max_model_bytes: int | None = None
    """A larger model is refused at once; None: what fits the memory that is free."""

    def cache(self) -> ModelCache:
        """The cache that these options ask for."""
        if self.cache_dir is None:
            return MemoryCache(self.cache_bytes)
        return FolderCache(self.cache_dir, self.cache_bytes)


@dataclass(slots=True)
class _Hosted:
    """One client id of this worker."""

    properties: Mapping[str, Scalar]
    said: Future[PublishOutcome] | None = None


class Worker:
    """Serves every job of a virtual host, as one client id or (in simulations) as many."""

    def __init__(
        self,
        transport: Transport,
        source: ClientSource,
        clients: Mapping[str, Mapping[str, Scalar]],
        options: WorkerOptions | None = None,
    ) -> None:
        """Serve with clients from ``source``. `run` starts it.

        ``clients`` gives each client id the properties that it tells of itself.

        Raises:
            InvalidClientId: an id does not fit a queue's name.
        """
        self._options = WorkerOptions() if options is None else options
        self._transport = transport
        self._hosted = {
            check_client_id(client_id): _Hosted(properties)
            for client_id, properties in clients.items()
        }
        self._by_queue = {client_queue(client_id): client_id for client_id in self._hosted}
        self._clients = Clients(source, self._context, keep=self._options.keep_clients)
        self._book = TaskBook()
        self._waiting: SimpleQueue[Task | None] = SimpleQueue()
        self._jobs: dict[str, int] = {}
        """Epoch of each job that we have heard of and that has not ended."""
        self._greeted: set[str] = set()
        """Jobs whose server is known to have been there in our time."""
        self._heartbeat = self._options.heartbeat
        self._instance = secrets.token_hex(8)
        self._stopping = threading.Event()
        self._models = ModelReader(
            transport,
            self._options.cache(),
            max_model_bytes=self._options.max_model_bytes,
            stopping=self._stopping,
        )
        self._trouble: BaseException | None = None

    # -- its life ----------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop` (with ``once``: until the first job ends). Blocks.

        Raises:
            ClientIdInUse: another live process serves one of the client ids.
            BrokerError: the broker refuses, or cannot be reached to begin with.
        """
        self._open()
        listener = threading.Thread(target=self._listen, name="flmq-inbox", daemon=True)
        listener.start()
        helpers = [
            threading.Thread(target=self._work, name=f"flmq-work-{i}", daemon=True)
            for i in range(1, self._options.threads)
        ]
        try:
            for helper in helpers:
                helper.start()
            self._work()
            for helper in helpers:
                helper.join()
        finally:
            self.stop()
            self._close(listener)
        if self._trouble is not None:
            raise self._trouble

    def stop(self) -> None:
        """Have `run` return after the task it is at. Any thread may call it."""
        if not self._stopping.is_set():
            self._stopping.set()
            for _ in range(self._options.threads):
                self._waiting.put(None)

    def _open(self) -> None:
        site = self._options.site
        topology = federation_topology(site)
        for client_id in self._hosted:
            topology += client_topology(client_id, site)
        self._transport.declare(topology)
        self._publisher = self._transport.publisher()
        self._outbox = Outbox(self._publisher)
        try:
            self._consumer = self._transport.consumer(
                list(self._by_queue), prefetch=_PREFETCH, exclusive=True
            )
        except ResourceLocked as error:
            self._publisher.close()
            raise ClientIdInUse(self._by_queue[error.queue]) from error
        assembler = Assembler(
            max_bytes_per_message=_MAX_TASK_BYTES, max_total_bytes=2 * _MAX_TASK_BYTES, max_open=64
        )
        self._inbox = Inbox(self._consumer, self._outbox, assembler, hold_chunks=True)

    def _close(self, listener: threading.Thread) -> None:
        # The byes first: they need the publisher. Then the consumer, which gives back what is
        # un-acked; its thread ends with it.
        for client_id in self._hosted:
            self._say(PresenceKind.BYE, client_id)
        self._publisher.close()
        self._consumer.close()
        listener.join()

    def _context(self, job: str, client_id: str) -> ClientContext:
        folder = self._options.state_dir
        if folder is not None:
            folder = folder / client_id / job
            folder.mkdir(parents=True, exist_ok=True)
        properties = self._hosted[client_id].properties
        return ClientContext(job, client_id, self._options.site, properties, folder)

    # -- receiving: the listener's thread ----------------------------------------------------

    def _listen(self) -> None:
        try:
            self._say_all(PresenceKind.HELLO)
            spoke = time.monotonic()
            while True:
                # Anew each time: a server may have asked for quicker heartbeats meanwhile.
                left = spoke + self._heartbeat - time.monotonic()
                letter = self._inbox.receive(left) if left > 0 else None
                if letter is not None:
                    self._receive(letter)
                if time.monotonic() - spoke >= self._heartbeat:
                    self._say_all(PresenceKind.HEARTBEAT)
                    spoke = time.monotonic()
        except TransportClosed:
            return
        except BaseException as error:
            self._trouble = error
        self.stop()

    def _receive(self, letter: Letter) -> None:
        match letter.body:
            case Task() as task:
                self._receive_task(task, letter)
                return
            case RollCall() as roll_call:
                self._hear_roll_call(roll_call, letter.delivery)
            case Receipt() as receipt:
                _log_receipt(receipt)
            case JobEnded() as ended:
                self._end_job(ended)
            case other:
                self._inbox.bury(letter, f"a worker takes no {type(other).__name__}")
                return
        self._inbox.ack(letter)

    def _receive_task(self, task: Task, letter: Letter) -> None:
        if task.client_id not in self._hosted:
            self._inbox.bury(letter, f"task of client {task.client_id} in another client's queue")
            return
        if task.epoch < self._jobs.get(task.job, 0):
            logger.info("job %s: dropping a task of an earlier server", task.job)
            self._inbox.ack(letter)
            return
        self._jobs[task.job] = task.epoch
        admission = self._book.admit(task.task_id, letter)
        if admission is Admission.NEW:
            self._waiting.put(task)
        elif admission is Admission.DONE:
            self._inbox.ack(letter)

    def _hear_roll_call(self, roll_call: RollCall, delivery: Delivery) -> None:
        """Say hello to a server that asks who is there; note one that answers our hello.

        Only the latter is known to be alive: a roll call may have waited here since before us.
        """
        if roll_call.epoch < self._jobs.get(roll_call.job, 0):
            return
        answers = delivery.message.correlation_id
        if answers not in ("", self._instance):
            return  # for a process that had this client id before us
        self._jobs[roll_call.job] = roll_call.epoch
        if roll_call.heartbeat_seconds > 0:
            self._heartbeat = min(self._heartbeat, roll_call.heartbeat_seconds)
        if answers:
            self._greeted.add(roll_call.job)
        else:
            self._say(PresenceKind.HELLO, self._by_queue[delivery.queue])

    def _end_job(self, ended: JobEnded) -> None:
        """Forget a job. One whose server never greeted us ended before our time."""
        if self._jobs.get(ended.job, ended.epoch + 1) > ended.epoch:
            return
        del self._jobs[ended.job]
        logger.info("job %s ended: %s", ended.job, ended.reason)
        self._clients.forget(ended.job)
        if self._options.once and ended.job in self._greeted:
            self.stop()
        self._greeted.discard(ended.job)

    def _say_all(self, kind: PresenceKind) -> None:
        for client_id in self._hosted:
            self._say(kind, client_id)

    def _say(self, kind: PresenceKind, client_id: str) -> None:
        """Say hello or bye; skipped while the last word is still on its way to a lost broker."""
        hosted = self._hosted[client_id]
        if kind is PresenceKind.HEARTBEAT and hosted.said is not None and not hosted.said.done():
            return
        options = self._options
        body = Presence(
            kind=kind,
            client_id=client_id,
            site=options.site,
            instance=self._instance,
            properties=hosted.properties,
            sent_unix_ms=time.time_ns() // 1_000_000,
            heartbeat_seconds=self._heartbeat,
            flmq_version=__version__,
        )
        address = Address(PRESENCE, presence_key(options.site, client_id))
        sent = self._outbox.send(address, body, mandatory=False, persistent=False, expiration=60.0)
        hosted.said = sent.outcome

    # -- working: the threads of `run` -------------------------------------------------------

    def _work(self) -> None:
        while (task := self._waiting.get()) is not None and not self._stopping.is_set():
            try:
                self._do(task)
            except TransportClosed:
                return

    def _do(self, task: Task) -> None:
        if self._jobs.get(task.job) is None:
            logger.info("job %s ended before its task was begun", task.job)
            self._inbox.ack(self._book.finish(task.task_id))
            return
        reply = answer_task(
            task,
            lambda: self._model(task),
            lambda: self._clients.get(task.job, task.client_id),
            time.time,
            level=logging.INFO if len(self._hosted) == 1 else logging.DEBUG,
        )
        self._publish(reply)
        self._inbox.ack(self._book.finish(task.task_id))
        if isinstance(task.ins, ReconnectIns):
            self._leave(task, task.ins)

    def _model(self, task: Task) -> Task:
        """The task with the model that it only names."""
        if task.model is None or not isinstance(task.ins, FitIns | EvaluateIns):
            return task
        request = ModelRequest(task.job, task.client_id, task.model.digest)
        address = Address(REPLIES, reply_key(self._options.site, task.client_id, task.job))
        deadline = None if task.deadline_unix_ms is None else task.deadline_unix_ms / 1000

        def ask() -> None:
            self._outbox.send(address, request, mandatory=False)

        parameters = self._models.get(task.model, deadline, ask)
        return replace(task, ins=replace(task.ins, parameters=parameters))

    def _publish(self, reply: Reply) -> None:
        """Publish a reply and wait until the broker has it, however long that takes."""
        outcomes = [sent.outcome.result() for sent in self._send(reply)]
        if PublishOutcome.UNROUTABLE in outcomes:
            logger.warning(
                "job %s, round %d: its reply queue is gone, so the job is over; reply dropped",
                reply.job,
                reply.server_round,
            )

    def _send(self, reply: Reply) -> list[Sent]:
        """Send a reply: whole, or where it is large its parameters in chunks behind it."""
        address = Address(REPLIES, reply_key(self._options.site, reply.client_id, reply.job))
        parameters = getattr(reply.res, "parameters", None)
        try:
            if parameters is None or sum(map(len, parameters.tensors)) <= INLINE_BYTES:
                return [self._outbox.send(address, reply, message_id=reply.task_id)]
            ref = refer(parameters)
            head = replace(reply, res=_without_parameters(reply.res), blob=ref)
            return [
                self._outbox.send(address, head, message_id=reply.task_id),
                self._outbox.send_blob(address, ref, reply.task_id, parameters.tensors),
            ]
        except InvalidReturnValue as error:
            # The result cannot be encoded (a metric of a strange type): that is its failure.
            bad = replace(reply, res=failure(FailureKind.BAD_RETURN, error))
            return [self._outbox.send(address, bad, message_id=reply.task_id)]

    def _leave(self, task: Task, ins: ReconnectIns) -> None:
        """Do as Flower's server asks: leave for good, or for some seconds."""
        if ins.seconds is None:
            self._end_job(JobEnded(task.job, task.epoch, "the server asked us to leave"))
        else:
            self._stopping.wait(ins.seconds)


def _without_parameters(res: Res) -> Res:
    """A copy of ``res`` that lacks its parameters, for they follow in chunks."""
    assert isinstance(res, FitRes | GetParametersRes)
    return replace(res, parameters=Parameters([], res.parameters.tensor_type))


def _log_receipt(receipt: Receipt) -> None:
    where = f"job {receipt.job}, round {receipt.server_round}, {receipt.phase.value}"
    match receipt.outcome:
        case ReceiptOutcome.ACCEPTED:
            logger.debug("%s: the server has our reply", where)
        case ReceiptOutcome.LATE:
            logger.warning(
                "%s: our reply came %.1f s late and was not counted", where, receipt.late_by_seconds
            )
        case ReceiptOutcome.DUPLICATE:
            logger.info("%s: the server had our reply already", where)
        case ReceiptOutcome.REJECTED:
            logger.warning("%s: our reply was rejected: %s", where, receipt.reason)
