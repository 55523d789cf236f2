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
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from flmq import __version__
from flmq.client.answering import answer_task, failure
from flmq.client.context import ClientContext
from flmq.client.factory import Clients, ClientSource
from flmq.client.taskbook import Admission, TaskBook
from flmq.common.errors import ClientIdInUse, InvalidReturnValue, ResourceLocked, TransportClosed
from flmq.common.logger import logger
from flmq.common.names import check_client_id
from flmq.common.typing import ReconnectIns, Scalar
from flmq.post import Inbox, Letter, Outbox, Sent
from flmq.transport import (
    DEFAULT_SITE,
    PRESENCE,
    REPLIES,
    Address,
    PublishOutcome,
    Transport,
    client_queue,
    client_topology,
    federation_topology,
    presence_key,
    reply_key,
)
from flmq.wire import (
    Assembler,
    FailureKind,
    JobEnded,
    Presence,
    PresenceKind,
    Receipt,
    ReceiptOutcome,
    Reply,
    RollCall,
    Task,
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
        self._heartbeat = self._options.heartbeat
        self._instance = secrets.token_hex(8)
        self._stopping = threading.Event()
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
            next_heartbeat = time.monotonic() + self._heartbeat
            while True:
                now = time.monotonic()
                if now >= next_heartbeat:
                    self._say_all(PresenceKind.HEARTBEAT)
                    next_heartbeat = now + self._heartbeat
                letter = self._inbox.receive(max(0.0, min(next_heartbeat - now, self._heartbeat)))
                if letter is not None:
                    self._receive(letter)
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
                self._answer_roll_call(roll_call, self._by_queue[letter.delivery.queue])
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

    def _answer_roll_call(self, roll_call: RollCall, client_id: str) -> None:
        if roll_call.epoch < self._jobs.get(roll_call.job, 0):
            return
        self._jobs[roll_call.job] = roll_call.epoch
        if roll_call.heartbeat_seconds > 0:
            self._heartbeat = min(self._heartbeat, roll_call.heartbeat_seconds)
        self._say(PresenceKind.HELLO, client_id)

    def _end_job(self, ended: JobEnded) -> None:
        """Forget a job. One that nobody greeted us for ended before our time: nothing to do."""
        if self._jobs.get(ended.job, ended.epoch + 1) > ended.epoch:
            return
        del self._jobs[ended.job]
        logger.info("job %s ended: %s", ended.job, ended.reason)
        self._clients.forget(ended.job)
        if self._options.once:
            self.stop()

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
            lambda: self._clients.get(task.job, task.client_id),
            time.time,
            level=logging.INFO if len(self._hosted) == 1 else logging.DEBUG,
        )
        self._publish(reply)
        self._inbox.ack(self._book.finish(task.task_id))
        if isinstance(task.ins, ReconnectIns):
            self._leave(task, task.ins)

    def _publish(self, reply: Reply) -> None:
        """Publish a reply and wait until the broker has it, however long that takes."""
        if self._send(reply).outcome.result() is PublishOutcome.UNROUTABLE:
            logger.warning(
                "job %s, round %d: its reply queue is gone, so the job is over; reply dropped",
                reply.job,
                reply.server_round,
            )

    def _send(self, reply: Reply) -> Sent:
        address = Address(REPLIES, reply_key(self._options.site, reply.client_id, reply.job))
        try:
            return self._outbox.send(address, reply, message_id=reply.task_id)
        except InvalidReturnValue as error:
            # The result cannot be encoded (a metric of a strange type): that is its failure.
            bad = Reply(
                task_id=reply.task_id,
                job=reply.job,
                server_round=reply.server_round,
                phase=reply.phase,
                client_id=reply.client_id,
                epoch=reply.epoch,
                nonce=reply.nonce,
                seconds=reply.seconds,
                res=failure(FailureKind.BAD_RETURN, error),
            )
            return self._outbox.send(address, bad, message_id=reply.task_id)

    def _leave(self, task: Task, ins: ReconnectIns) -> None:
        """Do as Flower's server asks: leave for good, or for some seconds."""
        if ins.seconds is None:
            self._end_job(JobEnded(task.job, task.epoch, "the server asked us to leave"))
        else:
            self._stopping.wait(ins.seconds)


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
