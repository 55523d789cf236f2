"""Ask clients on behalf of a job; each ask gets one answer despite failures.

This is the layer below rounds. Asks made together form a phase: it is recorded in the journal,
published, republished where a message may be lost, and closed by its policy. A round's training is
one phase of many asks. A strategy's call to a single client is a phase of one ask, and an
`AskStream` keeps many such phases open. Any number of phases may be open, on any threads.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from flmq.common.crashpoints import crash_point
from flmq.common.errors import FlmqError, MessageTooLarge
from flmq.common.logger import logger
from flmq.common.parameter import with_parameters
from flmq.common.times import TaskTimes
from flmq.common.typing import Parameters
from flmq.observe.courses.split import phase_about
from flmq.observe.events import PhaseClosed, PhaseOpened
from flmq.round import JobEvent, PhaseKey, ReplyRejected, Stopped, client_of
from flmq.round.fates import Fate
from flmq.round.job_events import Claim, Origin, PhaseEvent, RepliedLateBefore, ReplyCame
from flmq.round.job_events import PhaseOpened as PhaseBegins
from flmq.server.asks.task_publisher import TaskPublisher
from flmq.server.asks.waiting import WaitEdges, Watch
from flmq.server.job.context import JobContext
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job.request import PhaseResult, Request
from flmq.server.job_identity import Job
from flmq.server.models.published_models import PublishedModels
from flmq.server.replies.reply_loop import ReplyLoop
from flmq.server.resumption.job_journal import JobJournal, OpenedBefore
from flmq.server.resumption.reply_journal import ReplyJournal
from flmq.wire import PartialSum, Reply

__all__ = ["Asks", "Records"]


@dataclass(frozen=True, slots=True)
class Records:
    """The journal of a job: its phases and its replies."""

    phases: JobJournal
    replies: ReplyJournal


class Asks:
    """The asks of one job. Thread-safe."""

    def __init__(
        self,
        context: JobContext,
        loop: ReplyLoop,
        publisher: TaskPublisher,
        models: PublishedModels,
        waiting: WaitEdges,
        records: Records | None = None,
    ) -> None:
        """Ask through ``publisher`` and ``models``; with ``records``, asks survive a restart."""
        self._context = context
        self._loop = loop
        self._publisher = publisher
        self._models = models
        self._waiting = waiting
        self._records = records

    def open(
        self,
        key: PhaseKey,
        request: Request,
        on_done: Callable[[PhaseInFlight], None] = lambda phase: None,
    ) -> Watch:
        """Record and publish the asks of ``request``, and return a watch on their phase.

        ``on_done`` is called when the phase is done, and must not block.

        A phase that was open when a server died is resumed from the journal: replies already
        recorded count, and only the remaining clients are asked again.

        Raises:
            BrokerError: the broker refuses or cannot be reached.
            ModelTooLarge: the model does not fit in the model stream.
            Fenced: another server took charge of the job.
        """
        label = f"job {self._context.job.name}, {key}"
        now = self._context.clock()
        phase = PhaseInFlight.begin(
            key, request, label=label, now=now, now_ms=self._context.now_ms(), on_done=on_done
        )
        asked = tuple(sorted(phase.asks))
        self._context.emit(PhaseOpened(key.server_round, key.phase, asked, request.timeout))
        phase.refs = self._models.refer(phase.asks)
        try:
            return self._open(phase)
        except BaseException:
            with contextlib.suppress(FlmqError):
                self._loop.feed(PhaseEvent(key, Stopped("could not be asked"), now))
            self._let_go(phase)
            raise

    def _open(self, phase: PhaseInFlight) -> Watch:
        """Open the phase in steps that are safe to repeat after a kill at any point."""
        # Step 1: create the tasks, and record them in the journal before any is published.
        key, request = phase.key, phase.request
        phase.tasks = self._publisher.tasks(key, phase.asks, request.timeout, phase.refs)
        self._waiting.regions.arrange(phase)
        elapsed = 0.0
        is_journaled = self._records is not None and request.state is not None
        before: OpenedBefore | None = None
        if self._records is not None and is_journaled:
            orders = {each.site: tuple(sorted(each.covers)) for each in phase.orders.values()}
            before = self._records.phases.open_phase(key, phase.tasks, request, orders)
            if before is not None:
                self._publisher.resume(phase, before.opened_ms)
                self._waiting.regions.arrange_as(phase, before)
                elapsed = before.elapsed
            crash_point("server.phase_planned")
        self._say_who_is_behind(phase)
        # Step 2: count the replies that came earlier: late ones from earlier rounds, and those that
        # an earlier server recorded.
        records = None if before is None else self._records
        self._loop.open(phase, lambda loop: self._begins(phase, loop, records, is_journaled))
        # Step 3: publish the model, wait for its confirm, then publish the tasks that name it.
        timeout = None if request.timeout is None else max(0.0, request.timeout - elapsed)
        with self._loop.lock:
            pending = phase.round.pending()
        if pending:
            phase.bytes_down += self._publish_models(phase)
            crash_point("server.model_published")
        watch = Watch(self._waiting, phase, timeout, elapsed)
        if pending and phase.orders:
            # Orders first: an aggregator knows what a reply is of when it comes.
            self._waiting.regions.publish(phase, watch.left)
            crash_point("server.orders_published")
        for ask in pending:
            self._publisher.publish(phase, ask, phase.tasks[ask], watch.left)
        crash_point("server.tasks_published")
        return watch

    def _publish_models(self, phase: PhaseInFlight) -> int:
        """Publish the models of a phase, in chunks that the broker takes; return the bytes."""
        while True:
            try:
                return self._models.publish(phase.refs.values())
            except MessageTooLarge as refused:
                if not self._models.cut_smaller(refused, phase.refs):
                    raise
            refs = self._models.current(phase.refs)
            with self._loop.lock:
                phase.refs = refs
                phase.tasks = {
                    name: replace(task, model=refs.get(name)) for name, task in phase.tasks.items()
                }

    def _begins(
        self, phase: PhaseInFlight, loop: ReplyLoop, records: Records | None, is_journaled: bool
    ) -> Sequence[JobEvent]:
        """Return the event that opens the phase, then those that restore its recorded state.

        ``records`` None: no earlier server opened it, so that nothing is recorded of it.
        """
        key, request = phase.key, phase.request
        carried = None if records is None else records.replies.carried_into(key)
        if carried is not None:
            loop.add_late(carried)
        events: list[JobEvent] = [
            PhaseBegins(
                key,
                {task.task_id: ask for ask, task in phase.tasks.items()},
                request.policy,
                phase.label,
                journaled=is_journaled,
                hands_over=request.hands_over,
                carried=None if carried is None else tuple(late.ref for late in carried),
            )
        ]
        if records is None:
            return events
        now = self._context.clock()
        sums = records.replies.sums(key)
        summed = defaultdict[str, list[tuple[Reply, Claim, TaskTimes | None]]](list)
        recorded = list(records.replies.replies(key))
        for each in recorded:
            if each.order_id and each.claim is not None:
                summed[each.order_id].append((each.reply, each.claim, each.times))
        for each in recorded:
            if each.order_id:
                # All of a sum at the place of its first answer.
                if answers := summed.pop(each.order_id, None):
                    partial = _partial(phase, each.order_id, self._context.job, sums)
                    size = sums[each.order_id][1]
                    events.append(loop.sums.restore(partial, key, size, answers))
                continue
            origin = Origin.UNJUDGED if each.claim is None else Origin.RECORD
            reply = each.reply
            fitted = phase.fitted(each.ask, reply)  # one that came before the phase was open again
            if isinstance(fitted, Parameters):
                reply = replace(reply, res=with_parameters(reply.res, fitted))
            claim = each.claim or phase.claim(each.ask, reply)
            if isinstance(fitted, str) and each.claim is None:
                claim = ReplyRejected(each.ask, fitted)
            token = loop.register(reply, each.size, origin, each.times)
            task_id, client_id = each.reply.task_id, client_of(each.ask)
            events.append(ReplyCame(token, task_id, client_id, Fate.SETTLES, claim, now, origin))
        reason = records.phases.closed(key)
        if reason is not None:
            events.append(PhaseEvent(key, Stopped(reason), now))
            events.append(RepliedLateBefore(key, records.replies.answered_late(key)))
        return events

    def _say_who_is_behind(self, phase: PhaseInFlight) -> None:
        clients = [ask.client_id for ask in phase.asks.values()]
        with self._loop.lock:
            phase.behind = self._loop.state.unanswered_before(clients)
        if phase.behind:
            said = [
                f"{client} (round {key.server_round}, {key.phase.value})"
                for client, key in sorted(phase.behind.items())
            ]
            logger.warning(
                "%s: asked though they have not answered before, and may still be at work: %s",
                phase.label,
                ", ".join(said[:10]) + (" ..." if len(said) > 10 else ""),
            )

    def close(self, watch: Watch) -> PhaseResult:
        """Close a phase that is done, and return its result once its closing set is durable.

        Any reply that arrives after this is late, even if another server receives it.

        Raises:
            FlmqError: the phase could not close because replies can no longer be received.
        """
        phase = watch.phase
        watch.check()
        with self._loop.lock:
            is_journaled = self._records is not None and phase.request.state is not None
            parts = phase.parts() if is_journaled else ()
            result = phase.result()
        if self._records is not None and phase.request.state is not None:
            assert phase.closed is not None, "it has a result"
            since = self._context.clock() - phase.closed
            closed_ms = self._context.now_ms() - round(since * 1000)
            self._records.phases.close_phase(
                phase.key,
                result,
                phase.round.outcomes(),
                parts,
                phase_about(parts, phase.opened_ms, closed_ms),
            )
            crash_point("server.phase_closed")
        self._context.emit(
            PhaseClosed(
                phase.key.server_round,
                phase.key.phase,
                result.counts,
                result.seconds,
                result.bytes_down,
                result.bytes_up,
                result.reason,
            )
        )
        self._let_go(phase)
        self._loop.close(phase.key)
        return result

    def run(self, key: PhaseKey, request: Request) -> PhaseResult:
        """Ask, wait until the phase closes (see `flmq.round`), and return its result."""
        watch = self.open(key, request)
        try:
            watch.wait()
        except BaseException:
            self._let_go(watch.phase)
            raise
        return self.close(watch)

    def _let_go(self, phase: PhaseInFlight) -> None:
        """Release the models of a phase that is over."""
        refs, phase.refs = phase.refs, {}
        self._models.release(refs.values())


def _partial(
    phase: PhaseInFlight, order_id: str, job: Job, sums: Mapping[str, tuple[Parameters, int]]
) -> PartialSum:
    """Return a partial sum as the record has it."""
    order, key = phase.orders.get(order_id), phase.key
    return PartialSum(
        task_id=order_id,
        job=job.name,
        server_round=key.server_round,
        phase=key.phase,
        site="" if order is None else order.site,
        epoch=job.epoch,
        nonce=b"",
        run=job.run_id,
        parameters=sums[order_id][0],
    )
