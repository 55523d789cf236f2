"""Run a job on a transport, from the first roll call to the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from functools import partial

from flmq.common.logger import logger, logging_about
from flmq.common.phase import Phase
from flmq.messaging import Inbox, Sender
from flmq.messaging.protection import PLAIN
from flmq.messaging.speakers import Speakers
from flmq.observe.events import RunEvent
from flmq.round import JobState, PhaseKey
from flmq.server.asks.asks import Asks, Records
from flmq.server.asks.job_phases import JobPhases
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.asks.regional_orders import RegionalOrders
from flmq.server.asks.stream import AskStream, StreamCheck, check_in_any_round
from flmq.server.asks.task_publisher import TaskPublisher
from flmq.server.asks.waiting import WaitEdges
from flmq.server.job.context import JobContext
from flmq.server.job.late import LateReplyPolicy
from flmq.server.job.regional_order import order_id_of
from flmq.server.job.request import PhaseResult, Request
from flmq.server.job_identity import Job
from flmq.server.models.published_models import PublishedModels
from flmq.server.models.standing_stream import await_stream
from flmq.server.presence.admission import Admission
from flmq.server.presence.aggregators import Aggregators
from flmq.server.presence.doorkeeper import Doorkeeper
from flmq.server.presence.order import PresenceOrder
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.listener import Listener
from flmq.server.replies.receipts import Receipts
from flmq.server.replies.reply_edges import ReplyEdges
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.replies.uploading import Uploading
from flmq.server.replies.uploads import Spoiled, Uploads
from flmq.server.resumption.job_journal import Planned
from flmq.server.strategy.reply_check import spec_of
from flmq.transport import (
    TASKS,
    Address,
    PublishOutcome,
    Transport,
    everybody_key,
    models_topology,
    presence_queue,
    replies_queue,
    task_key,
    uploads_queue,
)
from flmq.transport.provisioned import is_provisioned
from flmq.wire import JobEnded, Reply
from flmq.wire.bounds import MAX_PRESENCE_BYTES

__all__ = ["Coordinator"]

_PREFETCH = 48
"""Most un-acked messages held, whatever the number of clients; a third may be 1 MiB each."""
_DAY = 24 * 3600.0  # seconds
_FEW_CLIENTS = 1000
"""So many may be told of the job's end by a message that outlives the broker."""


class Coordinator:
    """Runs the phases, direct calls and ask streams of one job on one transport."""

    def __init__(
        self,
        transport: Transport,
        job: Job,
        presence: PresenceWatcher,
        emit: Callable[[RunEvent], None],
        options: CoordinatorOptions,
        records: Records | None = None,
        late_policy: LateReplyPolicy | None = None,
    ) -> None:
        """Prepare without connecting: `start` does that.

        ``records``: the journal; None: the job does not survive a restart of the server.
        ``late_policy``: how late replies count in later rounds; None: they do not count.
        """
        self.job = job
        self._transport = transport
        self._presence = presence
        self._emit = emit
        self._options = options
        self._codec = options.codec
        self._records = records
        self._late_policy = late_policy

    def start(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start listening to clients and discover them. Call `take_job` first.

        Raises:
            BrokerError: the broker refuses or cannot be reached.
        """
        name, options = self.job.name, self._options
        self._clock = clock
        # Step 1: create the publisher and the consumer.
        self._publisher = self._transport.publisher()
        stands, keys = is_provisioned(self._transport), options.protection
        protection = None if keys is None else keys.protection_of(self.job)
        self._sender = Sender(
            self._publisher,
            user_id=self._transport.user if stands else None,
            protection=protection or PLAIN,
        )
        context = JobContext(
            self.job,
            self._sender,
            self._presence,
            self._emit,
            clock,
            aggregators=Aggregators(clock),
            speakers=Speakers(required=stands, users=options.speakers),
        )
        self._presence.on_heard = lambda presence: context.clocks.heard(
            presence.client_id, presence.sent_unix_ms, context.now_ms()
        )
        models = PublishedModels(
            self._sender,
            name,
            partial(await_stream, self._transport)
            if stands
            else partial(self._transport.declare, models_topology()),
            home=options.home,
            clock=clock,
            key_of=None if protection is None else protection.model_key,
        )
        self._consumer = self._transport.consumer(
            [replies_queue(name), uploads_queue(name), presence_queue(name)], prefetch=_PREFETCH
        )
        largest = {presence_queue(name): MAX_PRESENCE_BYTES}
        self._inbox = inbox = Inbox(
            self._consumer, self._sender, largest=largest, protection=protection or PLAIN
        )
        # Step 2: create what decides on replies and carries the decisions out.
        receipts = Receipts(self.job, self._sender, self._presence)
        self._uploads = Uploads(
            options.spool_dir,
            options.max_reply_bytes,
            codec=self._codec,
            base_of=models.at_hand,
        )
        loop = self._reply_loop(context, inbox, receipts)
        # Step 3: create what asks clients.
        task_publisher = TaskPublisher(
            context, loop, codec=self._codec, heartbeat=options.heartbeat
        )
        waiting = WaitEdges(
            loop,
            self._presence,
            task_publisher,
            self._uploads.received,
            self._tick,
            clock,
            RegionalOrders(context, loop, options),
        )
        self._asks = Asks(context, loop, task_publisher, models, waiting, self._records)
        self._phases = JobPhases(self._asks, self._records, lambda: self.losses)
        # Step 4: start listening.
        self._doorkeeper = doorkeeper = Doorkeeper(
            self.job,
            self._sender,
            self._presence,
            self._emit,
            heartbeat=options.heartbeat,
            admission=Admission(
                options.clients_allowed,
                options.required_properties,
                None if protection is None else PresenceOrder(),
            ),
            clock=clock,
        )
        if protection is not None:
            protection.on_stranger = doorkeeper.refuse
            protection.speakers = context.speakers
        uploading = Uploading(loop, self._uploads, inbox.ack, clock)
        self._listener = Listener(context, inbox, loop, uploading, models, doorkeeper, receipts)
        self._listener.start()
        self.discover_clients()

    def _reply_loop(self, context: JobContext, inbox: Inbox, receipts: Receipts) -> ReplyLoop:
        """Return a reply loop that starts from the recorded state."""
        policy, records = self._late_policy, self._records
        lates = [] if records is None or policy is None else records.replies.waiting_late()
        checkpoint = None if records is None else records.phases.resume()
        awaited = {} if records is None else records.phases.left_open()
        state = JobState(
            has_record=records is not None,
            late_until=0 if policy is None else policy.until,
            awaited=awaited,
            waiting=[late.ref for late in lates],
            last=0 if records is None else records.replies.last_fit_closed(),
        )
        edges = ReplyEdges(
            self._emit,
            context.clock,
            inbox.ack,
            receipts.send,
            self._unpack,
            self._uploads.store,
            receipts.send_to_aggregator,
            self._uploads.store_sum,
            self.job,
            None if records is None else records.replies,
            policy,
            None if checkpoint is None else spec_of(checkpoint.parameters),
            context.now_ms,
            context.clocks,
        )
        loop = ReplyLoop(state, edges)
        loop.add_late(lates)
        if records is not None:
            keys = {key for key, _ in awaited.values() if not (key.is_direct or key.is_streamed)}
            orders = {
                order_id_of(self.job, key, site): (key, site)
                for key in keys
                for site in records.phases.orders(key)
            }
            with loop.lock:
                loop.tasks.await_orders(orders)
        return loop

    def _unpack(self, reply: Reply) -> Reply | str:
        unpacked = self._uploads.unpack(reply)
        return unpacked.reason if isinstance(unpacked, Spoiled) else unpacked

    def _tick(self, key: PhaseKey, elapsed: float) -> None:
        if self._records is not None:
            self._records.phases.tick(key, elapsed)

    def discover_clients(self) -> None:
        """Ask every client of the sites that we know to say hello; others follow when heard."""
        for site in self._options.sites:
            self._doorkeeper.call_roll(site)

    # -- asking ------------------------------------------------------------------------------

    def begin(self, server_round: int, step: str) -> None:
        """Note which step of which round the strategy is about to be called for."""
        self._phases.begin(server_round, step)

    def planned(self, phase: Phase, server_round: int) -> Planned | None:
        """Return an earlier server's plan of the next phase; None: nothing is recorded."""
        return self._phases.planned(phase, server_round)

    def run_phase(self, request: Request) -> PhaseResult:
        """Ask, wait until the phase closes (see `flmq.round`), and return its result.

        A phase that was open when a server died is resumed from the journal: replies already
        recorded count, and only the remaining clients are asked again. Thread-safe.

        Raises:
            BrokerError: the broker no longer lets us read the replies.
            ModelTooLarge: the model does not fit in the model stream.
            Fenced: another server took charge of the job.
        """
        with logging_about(request, job=self.job.name):
            return self._phases.run_phase(request)

    def run_direct(self, request: Request, group_id: int | None) -> PhaseResult:
        """Ask one client on behalf of a strategy; raise what `run_phase` raises."""
        with logging_about(request, job=self.job.name):
            return self._phases.run_direct(request, group_id)

    def stream(
        self,
        phase: Phase,
        *,
        check: StreamCheck = check_in_any_round,
        timeout: float | None = None,
        cast: bool = False,
    ) -> AskStream:
        """Return a stream of asks of one kind; ``timeout``: seconds per ask, None: no limit."""
        clock, records = self._clock, self._records
        return AskStream(self._asks, phase, clock, records, check=check, timeout=timeout, cast=cast)

    @property
    def losses(self) -> tuple[int, int]:
        """Return how many uploads were left incomplete, and how many stray chunks came, so far."""
        return self._uploads.incomplete, self._uploads.stray_chunks

    @property
    def turned(self) -> float:
        """When the thread that hears clients last came round, by the clock given to `start`."""
        return self._listener.turned

    @property
    def mismatched(self) -> int:
        """How many messages were dropped as their senders have other keys than this server."""
        return self._inbox.mismatched

    @property
    def uploads_open(self) -> int:
        """How many replies' tensors are on their way."""
        return len(self._uploads.received())

    # -- the end -----------------------------------------------------------------------------

    def end(self, reason: str, *, patient: bool = True) -> None:
        """Tell every client that the job is over, and remove its queues.

        If the broker is unreachable, wait for it. If not ``patient``, wait a few seconds only,
        then leave the queues to expire.
        """
        body = JobEnded(self.job.name, self.job.epoch, reason, self.job.run_id)
        records = self._records
        asked = 0 if records is None else records.replies.most_asked()
        # A persistent message takes a file of each queue that it goes to, all at once: of thousands
        # that is more than a broker may open, and queues crash (RabbitMQ 3.10, emfile).
        persistent = max(len(self._presence), asked) <= _FEW_CLIENTS
        told = [
            self._sender.send(
                Address(TASKS, everybody_key(site)),
                body,
                mandatory=False,
                expiration=_DAY,
                persistent=persistent,
            ).outcome
            for site in self._doorkeeper.sites
        ]
        if patient:
            if not persistent:
                told += self._tell_who_is_away(body)
            wait(told)
        self.close()
        if any(not each.done() or each.exception() is not None for each in told):
            logger.warning("job %s: no broker to tell that it is over", self.job.name)
            return
        for queue in (replies_queue, uploads_queue, presence_queue):
            self._transport.delete_queue(queue(self.job.name))

    def _tell_who_is_away(self, body: JobEnded) -> list[Future[PublishOutcome]]:
        """Tell clients that are not heard one by one: their brokers may restart before they come.

        Blocks while many are on their way, which bounds the files that their queues take at once.
        """
        return [
            self._sender.send(
                Address(TASKS, task_key(site, client_id)),
                body,
                mandatory=False,
                expiration=_DAY,
                recipient=client_id,
            ).outcome
            for client_id, site in self._presence.away()
        ]

    def close(self) -> None:
        """Disconnect, and keep the job and its queues for a later start. Idempotent."""
        self._publisher.close()
        self._listener.is_ending = True
        self._consumer.close()
        self._listener.join()
