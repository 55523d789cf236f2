"""Watch an open phase: ask clients again where needed, and log which ones it waits for."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from flmq.common.errors import FlmqError
from flmq.common.logger import logger
from flmq.round import DeadlinePassed, PhaseKey, Stopped, client_of
from flmq.round.job_events import PhaseEvent
from flmq.server.asks.asking_again import Allowance, AskingAgain, Flow
from flmq.server.asks.regional_orders import RegionalOrders
from flmq.server.asks.task_publisher import TaskPublisher
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.presence.watcher import PresenceWatcher
from flmq.server.replies.reply_loop import ReplyLoop

__all__ = ["WaitEdges", "Watch"]

_LOOK_EVERY = 1.0  # seconds
_ASK_AGAIN_EVERY = 30.0  # seconds
_STILL_WAITING_EVERY = 60.0  # seconds
_SUSPICIOUS = 3
_MAYBE_DROPPED = (
    "; their tasks were published %d times and nothing came of it: if they are not training, a "
    "policy on the broker may drop messages (`flmq doctor` names it)"
)


@dataclass(frozen=True, slots=True)
class WaitEdges:
    """The interfaces through which a watch acts."""

    loop: ReplyLoop
    presence: PresenceWatcher
    publisher: TaskPublisher
    received: Callable[[], Mapping[str, int]]
    """Returns the bytes received so far of each incomplete reply, by task id."""
    tick: Callable[[PhaseKey, float], None]
    """Records how many seconds a phase has been open; raises `Fenced` if another server took
    charge."""
    clock: Callable[[], float]
    """Seconds, monotonic."""
    regions: RegionalOrders
    allowance: Allowance = field(default_factory=Allowance)
    """For tasks that are published again, of all phases."""
    processes: dict[str, float] = field(default_factory=dict)
    """When a client of a process last answered, in any phase: see `Flow`."""


class Watch:
    """Watches one phase until it closes. For one thread."""

    def __init__(
        self, edges: WaitEdges, phase: PhaseInFlight, timeout: float | None, elapsed: float
    ) -> None:
        """Start watching ``phase`` just before its tasks are published.

        ``timeout``: seconds until the deadline; None: wait without limit. ``elapsed``: seconds
        for which the phase was open under earlier servers.
        """
        self.phase = phase
        self._edges = edges
        now = edges.clock()
        self.deadline = None if timeout is None else now + timeout
        self._elapsed = elapsed
        self._started = self._said = self._ticked = now
        self._again = AskingAgain(phase.tasks, now, _ASK_AGAIN_EVERY)
        self._flow = Flow(_ASK_AGAIN_EVERY / 3, edges.processes)
        self._times_lost = edges.publisher.times_lost
        self._had: dict[str, int] = {}
        """Bytes of incomplete replies that were here when their asks were looked at, by ask."""
        self._held: set[str] = set()
        """Asks whose replies aggregators have."""
        self._absent: set[str] = set()
        """Asks whose client has no queue and has not been heard since."""
        self._all_heard = edges.publisher.all_heard

    def wait(self) -> None:
        """Wait until the phase closes; republish tasks that may be lost, and log progress.

        Raises:
            Fenced: another server took charge of the job.
            FlmqError: replies can no longer be received.
        """
        loop, phase = self._edges.loop, self.phase
        try:
            while not phase.done.is_set():
                phase.wake.wait(self.patience())
                phase.wake.clear()
                loop.perform()
                if not phase.done.is_set():
                    self.look()
        except BaseException:
            with contextlib.suppress(FlmqError):
                self._feed(Stopped("interrupted"))
            raise
        self.check()

    def check(self) -> None:
        """Raise the error that stopped the receiving of replies, if any."""
        if self._edges.loop.trouble is not None:
            raise self._edges.loop.trouble

    def see_to(self, *, ticks: bool = True) -> None:
        """Advance the phase without waiting for it; raise what `wait` raises."""
        self._edges.loop.perform()
        if not self.phase.done.is_set():
            self.look(ticks=ticks)

    @property
    def elapsed(self) -> float:
        """Return for how many seconds the phase has been open, under all servers."""
        return self._elapsed + self._edges.clock() - self._started

    @property
    def left(self) -> float | None:
        """Return the seconds until the deadline; None: no deadline."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - self._edges.clock())

    def patience(self) -> float:
        """Return the seconds after which to `look` again."""
        left = self.left
        return _LOOK_EVERY if left is None else min(_LOOK_EVERY, left)

    def look(self, *, ticks: bool = True) -> None:
        """Check the phase once: about every second, and when it is woken.

        Without ``ticks``, the caller enters `elapsed` into the journal.
        """
        now, phase, publisher = self._edges.clock(), self.phase, self._edges.publisher
        if ticks and now - self._ticked >= _LOOK_EVERY:
            # This also raises if another server took charge.
            self._ticked = now
            self._edges.tick(phase.key, self._elapsed + now - self._started)
        with self._edges.loop.lock:
            self._absent |= phase.unrouted
            phase.unrouted = set()
            came, phase.came = phase.came, []
        # A client that is heard declares its queue again; for the others, retry now and then.
        there = {ask for ask in self._absent if self._is_online(ask)}
        if not self._all_heard and publisher.all_heard:
            self._all_heard, there = True, set(self._absent)
        self._absent -= there
        received = self._edges.received()
        there |= self._edges.regions.look(phase, self.left, received)
        publisher.publish_again(phase, there, self.deadline)
        self._ask_again(now, came, received)
        if self.deadline is not None and now >= self.deadline:
            self._feed(DeadlinePassed())
        elif now - self._said >= _STILL_WAITING_EVERY:
            self._said = now
            self._say_whom_we_wait_for()

    def _ask_again(self, now: float, came: Sequence[str], received: Mapping[str, int]) -> None:
        """Publish again what may be lost; ``came`` names asks that were answered since.

        ``received`` are the bytes that are here of each incomplete upload, by task id.
        """
        presence = self._edges.presence
        self._held = self._edges.regions.held(self.phase)
        processes = (presence.process(client_of(ask)) for ask in came)
        self._flow.note(now, processes, sum(received.values()))
        if self._times_lost != self._edges.publisher.times_lost:
            self._times_lost = self._edges.publisher.times_lost
            self._again.soon(now)
        quiet = self._again.due(now, self._edges.allowance, partial(self._excuse, now, received))
        self._edges.publisher.publish_again(self.phase, quiet, self.deadline)
        self._absent -= quiet  # the broker reports again those that still have no queue

    def _excuse(
        self, now: float, received: Mapping[str, int], ask: str, is_overdue: bool
    ) -> bool | None:
        """Return whether the silence of an ask is explained; None: it needs no reply any more."""
        phase = self.phase
        if not phase.round.is_pending(ask):
            return None
        if ask in self._held:
            return True  # an aggregator has its reply
        if ask in self._absent:
            return False
        if not self._is_online(ask):
            return True
        before, self._had[ask] = self._had.get(ask, 0), received.get(phase.tasks[ask].task_id, 0)
        if self._had[ask] > before:
            return True  # it would send all of its reply again
        if is_overdue:
            return False
        process = self._edges.presence.process(client_of(ask))
        return self._flow.flows(now, phase.round.num_pending) or self._flow.process_flows(
            process, now
        )

    def _is_online(self, ask: str) -> bool:
        return self._edges.presence.is_online(client_of(ask))

    def _say_whom_we_wait_for(self) -> None:
        with self._edges.loop.lock:
            pending = self.phase.round.pending()
        if pending:
            lost, times = sorted(self._absent & set(pending)), self._again.times
            logger.log(
                logging.WARNING if lost else logging.INFO,
                "%s: waiting for %d of %d: %s%s%s",
                self.phase.label,
                len(pending),
                len(self.phase.round.tasks),
                _listed(pending),
                f"; no queue on the broker, and not heard of: {_listed(lost)}" if lost else "",
                _MAYBE_DROPPED % times if times >= _SUSPICIOUS else "",
            )

    def _feed(self, event: DeadlinePassed | Stopped) -> None:
        self._edges.loop.feed(PhaseEvent(self.phase.key, event, self._edges.clock()))


def _listed(client_ids: Sequence[str]) -> str:
    """Return the first ten ids as text for a log message."""
    return ", ".join(client_ids[:10]) + (" ..." if len(client_ids) > 10 else "")
