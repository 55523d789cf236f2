"""The worker: receives tasks from its clients' queues, runs them, publishes the replies.

Training runs on the threads of `Worker.run`, never on the one that receives: hellos, heartbeats and
receipts go on meanwhile. The result of a kill, by `AckPolicy`:

===================  ===========================  =============================================
killed               ACCEPT                       RESULT
===================  ===========================  =============================================
before the ack       the task comes again         the task comes again
while training       trained again, from spool    the task comes again, to whoever has the id
after training       the reply is sent            trained again
after the confirm    the reply is sent again: a   the broker has the reply; the task may come
                     duplicate, counted once      again: a duplicate, counted once
===================  ===========================  =============================================
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from flmq.client.client_ids import some_of
from flmq.client.context import ClientContext
from flmq.client.factory import Clients, ClientSource
from flmq.client.models.reader import ModelReader
from flmq.client.options import WorkerOptions, check_properties
from flmq.client.serving.backlog import Backlog
from flmq.client.serving.hands import Hands
from flmq.client.serving.herald import Herald
from flmq.client.serving.jobs import Jobs
from flmq.client.serving.signs import consuming, not_consuming, working
from flmq.client.serving.standing import Standing
from flmq.client.serving.work import Work
from flmq.client.tasks.deaths import BrokerDeaths, Deaths, FolderDeaths, NoDeaths
from flmq.client.tasks.receipts import AwaitedReceipts, log_receipt
from flmq.client.tasks.task_events import TaskEvents, level_for
from flmq.client.tasks.task_executor import TaskExecutor
from flmq.common.crashpoints import crash_point
from flmq.common.errors import ClientIdInUse, ResourceLocked, TransportClosed
from flmq.common.files import make_folder
from flmq.common.logger import logger, logging_about
from flmq.common.names import check_client_id
from flmq.common.typing import Scalar
from flmq.messaging import PLAIN, Incoming
from flmq.observe.bus import WorkerBus
from flmq.transport import Consumer, Transport, client_queue
from flmq.transport.standby import stand_by
from flmq.wire import Begun, BlobChunk, JobEnded, PresenceKind, Receipt, RollCall, Task

__all__ = ["Worker", "WorkerOptions"]

_PREFETCH = 2048
"""Prefetch of all clients together: tasks that wait or are being done."""
_OF_EACH_CLIENT = 8
"""Prefetch of every client, besides the notes on its tasks' earlier deaths: a task that waits, or
is being done, must not hide what lies behind it."""
_FOR_OTHERS = 0.02
"""Seconds for which a client's answer to a server waits for more that one message can tell."""
_BYES = 5.0
"""Seconds for which a process that stops tries to say so."""
_LAST_WORDS = 0.5
"""Seconds for which a process that is about to stop waits for what else its clients are told."""


class Worker:
    """Serve every job of a virtual host, as one client id or (in simulations) many."""

    def __init__(
        self,
        transport: Transport,
        source: ClientSource,
        clients: Mapping[str, Mapping[str, Scalar]],
        options: WorkerOptions | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        unix_clock: Callable[[], float] = time.time,
    ) -> None:
        """Serve with clients from ``source``. `run` starts it.

        ``clients`` maps each client id to its properties. ``clock`` gives monotonic seconds,
        ``unix_clock`` those since 1970.

        Raises:
            InvalidClientId: an id is not valid in a queue name.
            InvalidWorkerOptions: a client has more properties than a server keeps.
        """
        self._options = WorkerOptions() if options is None else options
        self._transport = transport
        self._properties = clients
        for client_id, properties in clients.items():
            check_properties(client_id, properties)
        self._tasks = {
            check_client_id(client_id): self._options.tasks(client_id, unix_clock)
            for client_id in clients
        }
        self._by_queue = {client_queue(client_id): client_id for client_id in self._tasks}
        self._clients = Clients(
            source, self._context, keep=self._options.keep_clients, pool=self._options.pool
        )
        self._clock = clock
        self._unix_clock = unix_clock
        self._herald = Herald(
            clients,
            self._options.site,
            self._options.heartbeat,
            unix_clock,
            alone=self._options.keys is not None,
        )
        self._backlog = Backlog(clock, unix_clock)
        self._hands = Hands(self._options.threads, self._backlog)
        self._turned = clock()
        """When the listener last came round."""
        self._serves = threading.Event()
        self._bus = WorkerBus.of(self._options.observers)
        self._events = TaskEvents(self._bus.emit, level=level_for(len(clients)), clock=unix_clock)
        self._jobs = Jobs(
            self._herald,
            self._clients,
            len(self._tasks),
            once=self._options.once,
            stop=self.stop,
            unix_clock=unix_clock,
        )

    # -- its life ----------------------------------------------------------------------------

    def run(self) -> None:
        """Work until `stop` (with ``once``: until the first job ends). Blocks.

        Raises:
            ClientIdInUse: another live process serves a client id, and we are not a standby.
            BrokerError: the broker refuses, or cannot be reached at the start.
        """
        self._open()
        self._take_up_what_was_left()
        listener = threading.Thread(target=self._listen, name="flmq-inbox", daemon=True)
        listener.start()
        try:
            self._serves.set()
            self._hands.run(self._work.run)
        finally:
            self.stop()
            self._work.leave()
            self._close(listener)
            if self._bus is not self._options.observers:
                self._bus.close()

    def stop(self) -> None:
        """Make `run` return after its current task. Any thread may call it."""
        self._hands.stop()

    def drain(self) -> bool:
        """Say bye at once, begin no task, and make `run` return once the current ones are sent.

        Tasks that come meanwhile stay in their queues, and those that wait where they are.
        Returns False, having done nothing, before `run` serves. Any thread may call it.
        """
        if not self._serves.is_set():
            return False
        self._hands.drain()
        self._herald.say_bye()
        return True

    def abandon(self) -> None:
        """Leave the current tasks to the next process; whoever calls it ends this one. Blocks."""
        self.stop()
        self._work.leave()
        self._consumer.close()

    def _open(self) -> None:
        site, options = self._options.site, self._options
        begun = self._clock()
        not_consuming(options.vitals)
        self._standing = Standing.found(self._transport, site)
        self._standing.prepare(self._tasks)
        self._take_queues()
        if len(self._tasks) > 1:
            seconds = self._clock() - begun
            logger.debug("%d clients have their queues after %.1f s", len(self._tasks), seconds)
        self._publisher = self._transport.publisher()
        protection = options.protection(self._unix_clock)
        self._sender = self._standing.sender(self._publisher, protection or PLAIN)
        self._herald.speak_through(self._sender)
        self._inbox = self._standing.inbox(self._consumer, self._sender, protection or PLAIN)
        self._models = ModelReader(
            self._transport,
            options.cache(self._clock, self._unix_clock, clients=len(self._tasks)),
            max_model_bytes=options.max_model_bytes,
            patience=options.model_patience,
            stopping=self._backlog.stopping,
            clock=self._clock,
            unix_clock=self._unix_clock,
        )
        self._models.own = self._standing.own_models(self._consumer)
        self._deaths = self._count_deaths()
        awaited = AwaitedReceipts(self._clock)
        executor = TaskExecutor(
            self._sender,
            self._models,
            self._clients,
            awaited,
            site=site,
            events=self._events,
            deaths=self._deaths,
        )
        if protection is not None:
            executor.reply_key = protection.reply_key
        self._work = Work(
            self._tasks,
            self._inbox,
            executor,
            awaited,
            self._backlog,
            leave=self._jobs.leave,
            deaths=self._deaths,
        )
        self._jobs.begin(self._work)
        working(options, list(self._tasks), self._inbox, self._backlog, awaited)

    def _count_deaths(self) -> Deaths:
        options = self._options
        if not options.max_deaths:
            return NoDeaths(self._inbox.ack)
        if options.state_dir is not None:
            return FolderDeaths(
                self._inbox.ack, options.state_dir, options.max_deaths, self._unix_clock
            )
        return BrokerDeaths(
            self._sender,
            self._inbox.ack,
            self._is_open,
            self._standing.notes_of,
            instance=self._herald.instance,
            most=options.max_deaths,
            clock=self._clock,
        )

    def _is_open(self, client_id: str, task_id: str) -> bool:
        tasks = self._tasks.get(client_id)
        return tasks is not None and tasks.current(task_id) is not None

    def _take_queues(self) -> None:
        """Become the one who serves our client ids; as a standby, wait until possible."""

        held = ""

        def take() -> Consumer:
            nonlocal held
            try:
                return self._consume()
            except ResourceLocked as error:
                held = error.queue
                raise

        def locked(error: ResourceLocked) -> None:
            client_id = self._by_queue[error.queue]
            if not self._options.standby:
                raise ClientIdInUse(client_id) from error
            others = f", all {len(self._by_queue)} of us" if len(self._by_queue) > 1 else ""
            logger.warning(
                "client %s is served by another process: standing by%s", client_id, others
            )

        def wait(seconds: float) -> None:
            # Of many clients, all are tried again only when that one is free.
            while not self._backlog.stopping.wait(seconds):
                one = len(self._by_queue) == 1
                info = None if one else self._transport.inspect_queue(held)
                if info is None or not info.consumers:
                    return
            raise TransportClosed("stopped while standing by")

        self._consumer = stand_by(take, locked, wait)

    def _consume(self) -> Consumer:
        with self._standing.asking_for(f"the queue of client {some_of(list(self._tasks))}"):
            return self._transport.consumer(
                list(self._by_queue),
                prefetch=_PREFETCH,
                each=min(_OF_EACH_CLIENT + self._options.max_deaths, _PREFETCH),
                exclusive=True,
                patient=self._standing.provisioned,
            )

    def _take_up_what_was_left(self) -> None:
        """Resume the tasks that an earlier process accepted but did not finish."""
        for client_id, tasks in self._tasks.items():
            left = tasks.left_over()
            if left:
                logger.info("client %s: %d tasks are left in the spool", client_id, len(left))
            for task in left:
                self._jobs.hear_task(task)
                self._backlog.put(task, self._clock() - tasks.age_of(task.task_id))

    def _close(self, listener: threading.Thread) -> None:
        # The byes first: they need the publisher. Then the consumer, which gives back what is
        # un-acked; its thread ends with it. Where replies fill the publisher's window and no broker
        # takes them, a bye would wait for room until the broker is back.
        self._herald.say_bye().join(_BYES)
        self._publisher.close()
        self._consumer.close()
        listener.join()

    def _context(self, job: str, client_id: str) -> ClientContext:
        folder = self._options.state_dir
        if folder is not None:
            folder = folder / client_id / "jobs" / job
            make_folder(folder)
        properties = self._properties[client_id]
        return ClientContext(job, client_id, self._options.site, properties, folder)

    # -- receiving: the listener's thread ----------------------------------------------------

    def _listen(self) -> None:
        try:
            consuming(
                self._options.vitals,
                lambda: self._turned,
                lambda: self._herald.every,
                self._backlog.draining.is_set,
            )
            self._herald.say_all(PresenceKind.HELLO)
            spoke = self._clock()
            while True:
                self._turned = self._clock()
                # Read each time: a server may have asked for more frequent heartbeats meanwhile.
                left = spoke + self._herald.every - self._clock()
                patience = min(left, self._patience())
                incoming = self._inbox.receive(patience) if left > 0 else None
                if incoming is not None:
                    with logging_about(incoming.body):
                        self._receive(incoming)
                if incoming is None or self._herald.is_due():
                    self._herald.flush()
                if incoming is None and self._jobs.is_over:
                    self.stop()
                if self._clock() - spoke >= self._herald.every:
                    self._herald.say_all(PresenceKind.HEARTBEAT)
                    self._work.look()
                    self._models.look()
                    spoke = self._clock()
        except TransportClosed:
            return
        except BaseException as error:  # whatever it is, nobody is listening any more
            self._hands.fail(error)

    def _patience(self) -> float:
        """Return for how many seconds to wait for another message, at most."""
        if self._herald.has_answers:
            return _FOR_OTHERS
        return _LAST_WORDS if self._jobs.is_over else math.inf

    def _receive(self, incoming: Incoming) -> None:
        match incoming.body:
            case Task() as task:
                self._receive_task(task, incoming)
                return
            case RollCall() as roll_call:
                delivery = incoming.delivery
                client_id = self._by_queue[delivery.queue]
                self._jobs.hear_roll_call(roll_call, delivery.message, client_id)
            case Receipt() as receipt:
                self._hear_receipt(receipt)
            case JobEnded() as ended:
                self._jobs.end(ended)
            case Begun() as note:
                self._deaths.hear(note, incoming)
                return
            case BlobChunk() if self._models.own is not None:
                self._models.own.hear(incoming)
                return
            case other:
                self._inbox.dead_letter(incoming, f"a worker takes no {type(other).__name__}")
                return
        self._inbox.ack(incoming)

    def _receive_task(self, task: Task, incoming: Incoming) -> None:
        if task.client_id not in self._tasks:
            self._inbox.dead_letter(
                incoming, f"task of client {task.client_id} in another client's queue"
            )
            return
        if not self._jobs.hear_task(task):
            logger.info("job %s: dropping a task of an earlier server", task.job)
            self._inbox.ack(incoming)
            return
        if self._backlog.draining.is_set():
            return  # un-acked, it goes back to its queue when we close
        self._events.received(task, again=incoming.delivery.redelivered)
        crash_point("worker.task_received")
        self._work.take(task, incoming)

    def _hear_receipt(self, receipt: Receipt) -> None:
        log_receipt(receipt)
        self._events.settled(receipt)
        if receipt.client_id in self._tasks:
            self._work.settle(receipt.client_id, receipt.task_id)
