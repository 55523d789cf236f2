"""A phase in flight: its asks, and the contents of the replies to them.

`flmq.round.job` decides whether a reply counts; here its payload is checked, kept and handed to the
sink. Not thread-safe: call everything but `claim`, `add_up` and `carry` with the reply loop's lock
held.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from flmq.common.errors import (
    AggregationError,
    FlmqError,
    MalformedMessage,
    RunError,
    StoredDataError,
)
from flmq.common.parameter import (
    named_like,
    parameters_of,
    with_parameters,
    without_parameters,
)
from flmq.common.typing import FitIns, FitRes, Parameters
from flmq.journal.parts import Part
from flmq.observe.events import ClientOutcome, RoundCounts
from flmq.round import (
    Close,
    Outcome,
    PhaseKey,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    Round,
    ask_name,
)
from flmq.round.job_actions import Verdict
from flmq.round.job_events import Claim
from flmq.server.job.client_failure import ClientFailure
from flmq.server.job.late import Late
from flmq.server.job.outcomes import Taken, described, part_of
from flmq.server.job.regional_order import RegionalOrder
from flmq.server.job.request import Ask, NotAddedUp, PhaseResult, Request
from flmq.server.strategy.casting import cast_like
from flmq.server.strategy.reply_check import ParametersSpec, spec_of
from flmq.wire import BlobRef, Failure, FileParameters, Reply, Res, Task
from flmq.wire.failures import why_failed
from flmq.wire.kinds import type_problem

__all__ = ["PhaseInFlight", "named"]

_R = TypeVar("_R")


@dataclass(slots=True)
class _Told:
    """What a client said about its failure: a traceback's end, or a result with a bad status."""

    detail: str = ""
    res: Res | None = None


@dataclass(slots=True)
class PhaseInFlight:
    """A phase that is open, or has closed and may still get late replies."""

    key: PhaseKey
    request: Request
    label: str
    round: Round
    """For reading only: the job's state feeds it."""
    asks: dict[str, Ask]
    """By the ask's name."""
    opened: float
    """When it opened, in monotonic seconds."""
    opened_ms: int = 0
    """When it was opened first, perhaps by an earlier server, in Unix ms; 0: not known."""
    published: dict[str, int] = field(default_factory=dict)
    """When each task was published first, in Unix ms, by the ask's name."""
    tasks: dict[str, Task] = field(default_factory=dict)
    """By the ask's name."""
    refs: dict[str, BlobRef] = field(default_factory=dict)
    """The model that the task of an ask names, by ask name, while the phase needs it."""
    specs: dict[str, ParametersSpec] = field(default_factory=dict)
    """The spec of what each ask sent; filled when a phase that hands over has closed."""
    done: threading.Event = field(default_factory=threading.Event)
    """Set once the round has closed and every reply that counts is durable and added up."""
    wake: threading.Event = field(default_factory=threading.Event)
    """Set when whoever waits for the phase must look at it."""
    on_done: Callable[[PhaseInFlight], None] = lambda phase: None
    """Called when the phase is done; must not block."""
    bytes_down: int = 0
    bytes_up: int = 0
    closed: float | None = None
    """When it closed, in monotonic seconds. None: not closed."""
    behind: Mapping[str, PhaseKey] = field(default_factory=dict)
    """Earlier phases that clients have not answered yet and may be working on, by client."""
    came: list[str] = field(default_factory=list)
    """Asks that were answered since whoever waits for the phase looked at it."""
    unrouted: set[str] = field(default_factory=set)
    """Asks to publish again soon: the client had no queue, or must do its task anew."""
    resumed: bool = False
    """Whether an earlier server planned it, and may have asked its clients already."""
    anew: set[str] = field(default_factory=set)
    """Asks that the client must do anew, although it takes them for settled."""
    orders: dict[str, RegionalOrder] = field(default_factory=dict)
    """Orders to aggregators of sites, by their task ids; fixed once the phase is open."""
    planned_epoch: int = 0
    """Epoch of the server that planned it; 0: not known."""
    _close: Close | None = None
    _replies: dict[str, Res] = field(default_factory=dict)
    """Replies that count, by the ask's name; without parameters if a sink takes them."""
    _late: list[Late] = field(default_factory=list)
    _told: dict[str, _Told] = field(default_factory=dict)
    _counts: Counter[Outcome] = field(default_factory=Counter)
    _settled: dict[str, ClientOutcome] = field(default_factory=dict)
    """What each ask came to, by its name."""
    _adding: threading.Lock = field(default_factory=threading.Lock)
    _error: FlmqError | None = None

    @classmethod
    def begin(
        cls,
        key: PhaseKey,
        request: Request,
        *,
        label: str,
        now: float,
        now_ms: int = 0,
        on_done: Callable[[PhaseInFlight], None] = lambda phase: None,
    ) -> PhaseInFlight:
        """Return a phase for ``request``; nothing counts before the reply loop has opened it.

        ``now`` is in monotonic seconds, ``now_ms`` in Unix ms.
        """
        asks = named(request.asks)
        nobody_yet = Round((), request.policy, label=label)
        return cls(key, request, label, nobody_yet, asks, now, now_ms, on_done=on_done)

    def fitted(self, ask: str, reply: Reply) -> Parameters | str | None:
        """Return a reply's parameters cast to the dtypes that were sent, or why they cannot be.

        None: they stay as they are.
        """
        asked = self.asks.get(ask)
        if not self.request.cast or asked is None or not isinstance(reply.res, FitRes):
            return None
        sent = parameters_of(asked.ins)
        if sent is None or why_failed(reply.res) is not None:
            return None
        fitted = cast_like(spec_of(sent), reply.res.parameters)
        return None if fitted is reply.res.parameters else fitted

    def claim(self, ask: str, reply: Reply) -> Claim:
        """Return whether ``reply`` fits what was asked, and if not, why."""
        res = reply.res
        if (why := why_failed(res)) is not None:
            return ReplyFailed(ask, why)
        asked = self.asks.get(ask)
        problem = type_problem(self.key.phase, res)
        if problem is None and asked is not None:
            problem = self.request.check(asked.ins, res)
        return ReplyAccepted(ask) if problem is None else ReplyRejected(ask, problem)

    def count(self, ask: str, verdict: Verdict, taken: Taken | None) -> ClientOutcome:
        """Note the outcome of an ask or of a reply (None: no reply), and keep its contents."""
        self._counts[verdict.outcome] += 1
        if taken is not None:
            self.bytes_up += taken.bytes
            if not self.done.is_set():
                self.came.append(ask)
            self._keep(ask, verdict.outcome, taken.reply.res)
        if verdict.outcome is Outcome.SILENT and ask in self.behind:
            before = self.behind[ask]
            reason = (
                f"{verdict.reason}; it has not answered round {before.server_round}, "
                f"{before.phase.value} yet either"
            )
            verdict = replace(verdict, reason=reason)
        task = self.tasks.get(ask)
        outcome = described(
            self.key,
            ask,
            verdict,
            taken,
            seconds=self._seconds(taken),
            task_id="" if task is None else task.task_id,
            published_ms=self.published.get(ask),
        )
        if verdict.outcome not in (Outcome.LATE, Outcome.DUPLICATE):
            self._settled[ask] = outcome
        return outcome

    def _seconds(self, taken: Taken | None) -> float | None:
        """Return the seconds from the opening of the phase to a reply."""
        if taken is None:
            return None
        received = None if taken.times is None else taken.times.received_ms
        if (self.resumed or taken.recorded) and received is not None and self.opened_ms:
            return max(0, received - self.opened_ms) / 1000
        return round(taken.at - self.opened, 6)

    def parts(self) -> tuple[Part, ...]:
        """Return what each client did, in the order of the outcomes of a phase that has closed."""
        settled = self._settled
        return tuple(part_of(each, settled.get(each.client_id)) for each in self.round.outcomes())

    def add_up(self, ask: str, taken: Taken, lock: threading.Lock) -> None:
        """Hand a reply that counts to the sink, if any. Call it without the lock."""
        res = taken.reply.res
        if isinstance(res, FitRes):
            self._add_up(ask, self._named(ask, res), lock)

    def carry(self, late: Late, lock: threading.Lock) -> None:
        """Count a late reply of an earlier round. Call it without the lock."""
        kept = late
        if self.request.sink is not None:
            kept = replace(late, res=without_parameters(late.res))
        with lock:
            self._late.append(kept)
        self._add_up(late.ref.client_id, late.res, lock)

    def merge(self, site: str, partial: Any, size: int, lock: threading.Lock) -> None:
        """Hand a partial sum of ``size`` bytes to the sink. Call it without the lock."""
        with lock:
            self.bytes_up += size
        sink = self.request.sink
        if sink is not None:
            self._guarded(f"the aggregator of {site}", lambda: sink.merge(partial), lock)

    def _add_up(self, client: str, res: FitRes, lock: threading.Lock) -> None:
        sink = self.request.sink
        if sink is not None:
            self._guarded(client, lambda: sink.add(client, res), lock)

    def _guarded(self, client: str, add: Callable[[], None], lock: threading.Lock) -> None:
        error: FlmqError
        try:
            with self._adding:
                add()
        except (RunError, StoredDataError) as raised:
            error = raised
        except (OSError, MemoryError) as raised:
            error = NotAddedUp(client, raised)
        except Exception as raised:
            error = AggregationError(f"the reply of {client} cannot be added up: {raised}")
            error.__cause__ = raised
        else:
            return
        with lock:
            self._error = self._error or error

    def close(self, close: Close, now: float) -> None:
        """Note how the round closed, and when, in monotonic seconds."""
        self._close, self.closed = close, now
        self.end()

    def end(self) -> None:
        """Wake whoever waits: the phase has closed, or can no longer close."""
        if not self.done.is_set():
            self.done.set()
            self.wake.set()
            self.on_done(self)

    def result(self) -> PhaseResult:
        """Return the phase's result; what it sent, and its replies, are no longer kept here."""
        close, closed = self._close, self.closed
        if close is None or closed is None:
            raise RuntimeError(f"{self.label} has not closed")
        outcomes = Counter(outcome.outcome for outcome in self.round.outcomes())
        for each in (Outcome.LATE, Outcome.DUPLICATE):
            outcomes[each] = self._counts[each]
        asked, carried_over = len(self.round.tasks), len(close.carried)
        counts = RoundCounts.of(outcomes, asked=asked, carried=carried_over)
        carried = {late.ref: late for late in self._late}
        result = PhaseResult(
            replies={ask: self._replies[ask] for ask in close.accepted},
            failures=self._failures(),
            counts=counts,
            seconds=closed - self.opened,
            bytes_down=self.bytes_down,
            bytes_up=self.bytes_up,
            reason=close.reason,
            enough=close.enough,
            error=self._error,
            late=tuple(carried[ref] for ref in close.carried),
        )
        self.specs = self._specs() if self.request.hands_over else {}
        self._replies, self._late, self._told, self._settled = {}, [], {}, {}
        self.asks, self.tasks = {}, {}
        for order in self.orders.values():
            order.lists = {}
        # The phase is remembered for its late replies, but not the model that it sent.
        self.request = replace(self.request, asks=(), sink=None)
        return result

    def _specs(self) -> dict[str, ParametersSpec]:
        """Return the spec of what each ask sent; asks that share parameters share the spec."""
        seen: dict[int, ParametersSpec] = {}
        specs: dict[str, ParametersSpec] = {}
        for name, ask in self.asks.items():
            if isinstance(ask.ins, FitIns):
                sent = ask.ins.parameters
                # Unreadable parameters have no spec: no late reply will match them.
                with contextlib.suppress(MalformedMessage):
                    if id(sent) not in seen:
                        seen[id(sent)] = spec_of(sent)
                    specs[name] = seen[id(sent)]
        return specs

    def _failures(self) -> list[ClientFailure | tuple[str, Res]]:
        failures: list[ClientFailure | tuple[str, Res]] = []
        for outcome in self.round.outcomes():
            if outcome.outcome is Outcome.ACCEPTED:
                continue
            told = self._told.get(outcome.client_id, _Told())
            if told.res is not None:
                failures.append((outcome.client_id, told.res))
            else:
                failures.append(
                    ClientFailure(outcome.client_id, outcome.outcome, outcome.reason, told.detail)
                )
        return failures

    def _named(self, ask: str, res: _R) -> _R:
        """Return a reply with the names of the tensors that were asked, if it came without."""
        asked, got = self.asks.get(ask), parameters_of(res)
        sent = None if asked is None else parameters_of(asked.ins)
        if got is None or sent is None or got.names:
            return res
        if isinstance(got, FileParameters):
            if len(got.ref.lengths) == len(sent.names):
                got.names = sent.names
            return res
        return with_parameters(res, named_like(got, sent))

    def _keep(self, ask: str, outcome: Outcome, res: Res) -> None:
        if outcome is Outcome.ACCEPTED and not isinstance(res, Failure):
            added_up = self.request.sink is not None and isinstance(res, FitRes)
            # The object may be the user's own: parameters are left out of a copy.
            self._replies[ask] = without_parameters(res) if added_up else self._named(ask, res)
        elif outcome is Outcome.FAILED:
            self._told[ask] = (
                _Told(detail=res.traceback_tail) if isinstance(res, Failure) else _Told(res=res)
            )


def named(asks: Sequence[Ask]) -> dict[str, Ask]:
    """Return each ask by its name; a client's second ask has another name than its first."""
    seen: Counter[str] = Counter()
    found: dict[str, Ask] = {}
    for ask in asks:
        found[ask_name(ask.client_id, seen[ask.client_id])] = ask
        seen[ask.client_id] += 1
    return found
