"""Order partial sums of the aggregators of sites, and do without those that do not answer.

An aggregator adds up the replies of its sites' clients; its order lists the asks that are awaited.
Whatever happens to it, its clients keep their replies: asked again without ``via``, they send them
here, and nothing is trained twice.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from functools import partial

from flmq.common.errors import FlmqError, TransportClosed
from flmq.common.logger import logger
from flmq.common.parameter import parameters_of
from flmq.common.typing import Parameters
from flmq.observe.events import Note
from flmq.round import client_of
from flmq.server.asks.options import CoordinatorOptions
from flmq.server.job.context import JobContext
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.regional_order import RegionalOrder, order_id_of
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.resumption.job_journal import OpenedBefore
from flmq.transport import TASKS, Address, PublishOutcome, aggregator_key
from flmq.wire import AggregateOrder, Asked, SendPartial, size_of
from flmq.wire.regional import MAX_ASKED, list_digest, marked

__all__ = ["RegionalOrders"]

_AGAIN_EVERY = 30.0  # seconds
_SHRUNK_AGAIN = 2.0
"""Seconds after which an order whose list became shorter is published again."""
_HELD_FOR = 5
"""Times the patience for which an aggregator may have all replies and send nothing."""
_LARGE = 1 << 20
"""Bytes up to which parameters are compared to find out whether clients were sent the same."""


class RegionalOrders:
    """The orders of a job. For the threads that watch its phases; each phase has one."""

    def __init__(self, context: JobContext, loop: ReplyLoop, options: CoordinatorOptions) -> None:
        """Order from the aggregators that ``context`` knows."""
        self._context = context
        self._loop = loop
        self._options = options
        self._said: set[str] = set()

    # -- before the phase is open ------------------------------------------------------------

    def arrange(self, phase: PhaseInFlight) -> None:
        """Choose by which sites' aggregators the replies of a new phase go; its tasks say so."""
        phase.planned_epoch = self._context.job.epoch
        if not self._options.aggregators:
            return
        topmost = self._context.aggregators.topmost()
        key, request = phase.key, phase.request
        if not topmost or key.is_direct or key.is_streamed:
            return
        why = request.whole_replies or self._why_not_read() or _why_not_alike(phase)
        if why:
            if why not in self._said:
                self._said.add(why)
                sites = ", ".join(sorted(topmost))
                logger.info("%s: passed through the aggregators of %s: %s", phase.label, sites, why)
            return
        above = {site: of for of, covers in topmost.items() for site in covers}
        via = {name: self._context.presence.site(ask.client_id) for name, ask in phase.asks.items()}
        self._place(phase, topmost, above, via)

    def arrange_as(self, phase: PhaseInFlight, before: OpenedBefore) -> None:
        """Let the replies of a phase go as the server that planned it said."""
        phase.planned_epoch = before.epoch
        phase.orders = {}
        phase.tasks = {name: replace(task, via="") for name, task in phase.tasks.items()}
        if not (before.orders and self._options.aggregators) or self._why_not_read():
            return
        covers = {site: frozenset(of) for site, of in before.orders.items()}
        above = {site: of for of, sites in covers.items() for site in sites}
        self._place(phase, covers, above, before.via)

    def _why_not_read(self) -> str:
        if self._options.protection is None:
            return ""
        return (
            "replies are sealed to the server, and an aggregator cannot add up what it cannot read"
        )

    def _place(
        self,
        phase: PhaseInFlight,
        covers: Mapping[str, frozenset[str]],
        above: Mapping[str, str],
        via: Mapping[str, str],
    ) -> None:
        asks: dict[str, dict[str, str]] = defaultdict(dict)
        for name, task in phase.tasks.items():
            site = via.get(name, "")
            if site in above and len(asks[above[site]]) < MAX_ASKED:
                asks[above[site]][task.task_id] = name
                phase.tasks[name] = replace(task, via=site)
        now = self._context.clock()
        for site, of in asks.items():
            if of:
                order_id = order_id_of(self._context.job, phase.key, site)
                phase.orders[order_id] = RegionalOrder(site, order_id, covers[site], of, now)

    # -- while it is open --------------------------------------------------------------------

    def publish(self, phase: PhaseInFlight, left: float | None) -> None:
        """Publish a phase's orders, which have ``left`` seconds; None: no deadline."""
        for order in phase.orders.values():
            if order.is_open:
                self._publish(phase, order, left)

    def look(
        self, phase: PhaseInFlight, left: float | None, received: Mapping[str, int]
    ) -> set[str]:
        """See to a phase's orders; return the asks whose clients must now be asked directly.

        ``received`` are the bytes that are here of each incomplete upload, by task id.
        """
        if not phase.orders:
            return set()
        now = self._context.clock()
        direct = set[str]()
        for order in phase.orders.values():
            if order.is_open:
                order.held = self._held(order)
                self._see_to(phase, order, left, now, received.get(order.order_id, 0))
            if not order.is_open and not order.is_direct:
                direct |= self._go_direct(phase, order)
        self._end_if_enough(phase)
        return direct

    def held(self, phase: PhaseInFlight) -> set[str]:
        """Return the asks of a phase whose replies aggregators had at the last `look`."""
        return {ask for order in phase.orders.values() if order.is_open for ask in order.held}

    def _held(self, order: RegionalOrder) -> frozenset[str]:
        """Return the asks whose replies an order's aggregator has, as it last reported."""
        known = self._context.aggregators.in_hand(order.site, order.order_id)
        asks = None if known is None else order.lists.get(known.list_digest)
        if known is None or asks is None:
            return frozenset()
        return frozenset(order.asks[task_id] for task_id in marked(asks, known.held))

    def _see_to(
        self,
        phase: PhaseInFlight,
        order: RegionalOrder,
        left: float | None,
        now: float,
        received: int,
    ) -> None:
        heard = self._context.aggregators.heard(order.site)
        order.heard = max(order.heard, heard or order.heard)
        waiting = frozenset(self._waiting(phase, order))
        if not waiting:
            return
        comes, order.received = received > order.received, received
        if comes or not waiting <= order.held:
            order.held_since = None
        elif order.held_since is None:
            order.held_since = now
        patience, why = self._options.aggregator_patience, ""
        if now - order.heard > patience:
            why = f"nothing was heard of it for {now - order.heard:.0f} s"
        elif order.held_since is not None and now - order.held_since > _HELD_FOR * patience:
            why = f"it holds all replies, and nothing came in {now - order.held_since:.0f} s"
        if why:
            with self._loop.lock:
                order.refused = order.refused or why
            return
        if comes:
            return  # it would send all of its sum again
        since = _AGAIN_EVERY if order.published is None else now - order.published
        if since >= _AGAIN_EVERY or (waiting != order.listed and since >= _SHRUNK_AGAIN):
            self._publish(phase, order, left)

    def _waiting(self, phase: PhaseInFlight, order: RegionalOrder) -> list[str]:
        with self._loop.lock:
            return [ask for ask in order.asks.values() if phase.round.expects(ask)]

    def _go_direct(self, phase: PhaseInFlight, order: RegionalOrder) -> set[str]:
        """Ask for replies directly from now on; return whom to ask at once."""
        order.is_direct = True
        waiting = set(self._waiting(phase, order))
        with self._loop.lock:
            for ask in waiting & phase.tasks.keys():
                phase.tasks[ask] = replace(phase.tasks[ask], via="")
        if order.is_taken:
            return set()  # their replies are passed on by the aggregator as they come
        said = (
            f"{phase.label}: the aggregator of {order.site} is done without ({order.refused}): "
            f"its {len(waiting)} clients are asked for their replies directly"
        )
        logger.warning("%s", said)
        self._context.emit(Note(said))
        return waiting

    def _end_if_enough(self, phase: PhaseInFlight) -> None:
        """Have partial sums sent once what is here, and what aggregators hold, is enough."""
        target = phase.request.policy.target_results
        if target is None:
            return
        held = self.held(phase)
        with self._loop.lock:
            held = {ask for ask in held if phase.round.expects(ask)}
            enough = len(phase.round.accepted()) + len(held) >= target
        if not (enough and held):
            return
        job = self._context.job
        for order in phase.orders.values():
            if order.is_open and not order.is_wanted and held & set(order.asks.values()):
                order.is_wanted = True
                self._context.sender.send(
                    Address(TASKS, aggregator_key(order.site)),
                    SendPartial(order.order_id, job.name, job.epoch, job.run_id),
                    mandatory=False,
                )

    # -- publishing --------------------------------------------------------------------------

    def _publish(self, phase: PhaseInFlight, order: RegionalOrder, left: float | None) -> None:
        waiting = self._waiting(phase, order)
        if not waiting:
            return
        message = self._message(phase, order, waiting, left)
        with self._loop.lock:
            order.published = self._context.clock()
            order.listed = frozenset(waiting)
            order.is_wanted = False
            order.keep_list(list_digest(message.asks), message.asks)
        try:
            sent = self._context.sender.send(
                Address(TASKS, aggregator_key(order.site)),
                message,
                expiration=left,
                message_id=order.order_id,
            )
        except ValueError as error:  # so many asks of a model of so many tensors
            with self._loop.lock:
                order.refused = f"its order is too large for a message: {error}"
                phase.wake.set()
            return
        with self._loop.lock:
            phase.bytes_down += sent.bytes
        sent.outcome.add_done_callback(partial(self._published, phase, order))

    def _published(
        self, phase: PhaseInFlight, order: RegionalOrder, sent: Future[PublishOutcome]
    ) -> None:
        """Handle the outcome of publishing an order, on the publisher's thread."""
        error = sent.exception()
        if isinstance(error, TransportClosed):
            return
        if isinstance(error, FlmqError):
            reason = f"its order could not be published: {error}"
        elif sent.result() is PublishOutcome.UNROUTABLE:
            reason = "it has no queue"
        else:
            return
        with self._loop.lock:
            if order.is_open:
                order.refused = reason
            phase.wake.set()

    def _message(
        self,
        phase: PhaseInFlight,
        order: RegionalOrder,
        waiting: list[str],
        left: float | None,
    ) -> AggregateOrder:
        job, key, request = self._context.job, phase.key, phase.request
        tasks = [phase.tasks[ask] for ask in waiting]
        parameters = parameters_of(tasks[0].ins)
        assert parameters is not None
        deadline = None if left is None else round((self._context.wall_clock() + left) * 1000)
        asks = tuple(
            Asked(
                task.task_id,
                task.client_id,
                task.nonce,
                "" if ask == client_of(ask) else ask,
                "" if task.via == order.site else task.via,
            )
            for ask, task in zip(waiting, tasks, strict=True)
        )
        return AggregateOrder(
            task_id=order.order_id,
            job=job.name,
            server_round=key.server_round,
            phase=key.phase,
            site=order.site,
            epoch=job.epoch,
            nonce=job.nonce(order.order_id),
            run=job.run_id,
            parameters=parameters,
            asks=asks,
            call=key.call,
            cast=request.cast,
            deadline_unix_ms=deadline,
            timeout_seconds=left,
            model=tasks[0].model,
            reply_codec=tasks[0].reply_codec,
            max_reply_bytes=self._options.max_reply_bytes,
        )


def _why_not_alike(phase: PhaseInFlight) -> str:
    """Return why not all clients of a phase are sent the same parameters; empty: they are."""
    sent = [parameters_of(ask.ins) for ask in phase.asks.values()]
    first = sent[0] if sent else None
    if first is None or not first.tensors:
        return "clients are sent no model"
    if len({ref.digest for ref in phase.refs.values()}) > 1:
        return "clients are sent models of their own"
    if not all(_same(first, each) for each in sent):
        return "clients are sent models of their own"
    return ""


def _same(one: Parameters, other: Parameters | None) -> bool:
    if one is other:
        return True
    return other is not None and size_of(one) <= _LARGE and one == other
