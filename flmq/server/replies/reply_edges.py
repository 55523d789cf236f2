"""The reply loop's connections to the outside, and what it holds of each reply in progress."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from flmq.common.parameter import with_parameters
from flmq.common.times import TaskTimes
from flmq.common.typing import Parameters
from flmq.messaging import Incoming
from flmq.observe.events import RunEvent
from flmq.round import Outcome, PhaseKey
from flmq.round.job_actions import Enter
from flmq.round.job_events import Origin, Recorded
from flmq.server.job.clock_offsets import ClockOffsets
from flmq.server.job.late import LateReplyPolicy
from flmq.server.job.outcomes import Taken
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.job_identity import Job
from flmq.server.strategy.reply_check import ParametersSpec
from flmq.wire import PartialSum, Reply

__all__ = ["InHand", "ReplyEdges", "ReplyEntry", "ReplyRecord", "SumInRecord"]


@dataclass(frozen=True, slots=True)
class ReplyEntry:
    """A reply to enter into the job's record."""

    action: Enter
    reply: Reply
    size: int
    """Bytes received for it."""
    encoded: bytes = b""
    """The reply as its client encoded it; empty: it is not what the client sent."""
    order_id: str = ""
    """Task id of the order whose partial sum it is in; empty: it came by itself."""
    times: TaskTimes | None = None
    """The course of its task."""


@dataclass(frozen=True, slots=True)
class SumInRecord:
    """A partial sum to enter into the job's record, with the answers that name its order."""

    key: PhaseKey
    partial: PartialSum
    size: int
    """Bytes received for it."""


class ReplyRecord(Protocol):
    """The record that makes replies durable: a job's journal."""

    def enter(self, entries: Sequence[ReplyEntry], sums: Sequence[SumInRecord] = ()) -> None:
        """Enter all the replies and sums or none of them; they are durable on return."""

    def recorded(self, reply: Reply) -> Recorded | None:
        """Return what is known of the closed phase that a reply answers; None: nothing known."""


@dataclass(frozen=True, slots=True)
class ReplyEdges:
    """The functions and records by which the loop acts on the outside."""

    emit: Callable[[RunEvent], None]
    clock: Callable[[], float]
    """Seconds, monotonic."""
    ack: Callable[[Incoming], None] = lambda incoming: None
    receipt: Callable[[Reply, Outcome, str, float], None] = lambda reply, outcome, reason, by: None
    """Tells a client its reply's outcome, the reason, and how many seconds late it was."""
    unpack: Callable[[Reply], Reply | str] = lambda reply: reply
    """Returns the reply with its parameters decompressed, or why they cannot be."""
    store: Callable[[Reply, Parameters], Reply] = lambda reply, parameters: replace(
        reply, res=with_parameters(reply.res, parameters)
    )
    """Returns the reply with these parameters in place of its own, where replies' are kept."""
    sum_receipt: Callable[[PartialSum, str, Outcome, str], None] = (
        lambda partial, site, outcome, reason: None
    )
    """Tells the aggregator of a site the outcome of its partial sum, and the reason."""
    store_sum: Callable[[PartialSum], PartialSum] = lambda partial: partial
    """Returns the sum with its parameters where replies' are kept."""
    job: Job | None = None
    """Whose orders partial sums answer. None: none is taken in."""
    record: ReplyRecord | None = None
    late_policy: LateReplyPolicy | None = None
    model: ParametersSpec | None = None
    """The spec of the parameters in an earlier server's tasks. None: not known."""
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    """Unix milliseconds."""
    clocks: ClockOffsets = field(default_factory=ClockOffsets)


@dataclass(slots=True)
class InHand:
    """A reply in progress."""

    reply: Reply
    size: int
    """Bytes received for it."""
    at: float
    """When it arrived, in monotonic seconds."""
    incoming: Incoming | None
    """The message to ack. None: nothing to ack, or acked already."""
    origin: Origin = Origin.QUEUE
    spoiled: str = ""
    """Why its transfer failed. Empty: it did not fail."""
    came: tuple[Reply, bytes] | None = None
    """The reply and its bytes, where it came in one message."""
    order_id: str = ""
    """Task id of the order whose partial sum it is in, which has its parameters; empty: in none."""
    received_ms: int = 0
    """When it arrived, in Unix ms."""
    times: TaskTimes | None = None
    """The course of its task, once it is counted; as recorded, if it is from the record."""

    def entry(self, action: Enter) -> ReplyEntry:
        """Return what to enter into the record."""
        came = self.came
        encoded = came[1] if came is not None and came[0] is self.reply else b""
        return ReplyEntry(action, self.reply, self.size, encoded, self.order_id, self.times)

    def taken(self) -> Taken:
        """Return it as its phase takes it."""
        recorded = self.origin is not Origin.QUEUE
        return Taken(self.reply, self.size, self.at, self.times, recorded)

    def stamp(self, phase: PhaseInFlight | None, ask: str, edges: ReplyEdges) -> None:
        """Note that it is counted now; what an earlier server took in has its times from then."""
        if self.origin is not Origin.QUEUE or self.times is not None:
            return
        published = None if phase is None else phase.published.get(ask)
        said, received = self.reply.times, self.received_ms
        estimate = edges.clocks.replied(self.reply.client_id, published, said, received)
        offset, error = (None, None) if estimate is None else estimate
        self.times = TaskTimes(published, received, edges.now_ms(), said, offset, error)
