"""One phase of a round in flight: the pure round, and what its replies carry.

Not thread-safe: everything but `judge` and `absorb` is called with the task table's lock held.
"""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from flmq.common.errors import (
    AggregationError,
    FlmqError,
    MalformedMessage,
    RunError,
    StoredDataError,
)
from flmq.common.phase import Phase
from flmq.common.typing import Code, FitIns, FitRes, Parameters
from flmq.journal.records import PhaseKey
from flmq.observe.events import ClientOutcome, RoundCounts
from flmq.round import (
    Action,
    Close,
    Event,
    LateReplyOffered,
    LateReplyRef,
    Outcome,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    Round,
    RoundState,
    Settle,
    TaskState,
)
from flmq.server.asks.client_failure import ClientFailure
from flmq.server.asks.request import (
    Ask,
    Check,
    NotAddedUp,
    PhaseResult,
    Request,
    Sink,
    Taken,
    accept_anything,
)
from flmq.server.replies.late import Late
from flmq.server.strategy.reply_check import ParametersSpec, spec_of
from flmq.wire import Failure, Reply, Res
from flmq.wire.kinds import type_problem

__all__ = [
    "Ask",
    "Check",
    "NotAddedUp",
    "PhaseInFlight",
    "PhaseResult",
    "Request",
    "Sink",
    "Taken",
    "accept_anything",
]


_Fit = TypeVar("_Fit", bound=FitRes)


@dataclass(slots=True)
class _Told:
    """What a client said besides its result."""

    detail: str = ""
    res: Res | None = None


@dataclass(slots=True)
class PhaseInFlight:
    """A phase in flight."""

    server_round: int
    phase: Phase
    asks: dict[str, Ask]
    round: Round
    check: Check
    opened: float
    """Monotonic seconds."""
    sink: Sink | None = None
    key: PhaseKey | None = None
    """Its place in the job's journal; None: it has none."""
    hands_over: bool = False
    final: bool = False
    """Whether its closing set is durable, where it has a journal: only then is a reply late."""
    outlines: dict[str, ParametersSpec] = field(default_factory=dict)
    """What each client was sent, of a phase that hands over and has closed."""
    done: threading.Event = field(default_factory=threading.Event)
    """Set once the round has closed and every accepted reply is absorbed."""
    bytes_down: int = 0
    bytes_up: int = 0
    closed: float | None = None
    behind: Mapping[str, str] = field(default_factory=dict)
    """Clients that were silent before: what they have not answered yet, and may be at work on."""
    unrouted: set[str] = field(default_factory=set)
    """Clients that are to be asked again in a moment: they had no queue, and may have one then."""
    resumed: bool = False
    """Whether an earlier server planned it: its clients may have been asked then."""
    anew: set[str] = field(default_factory=set)
    """Clients that are to do their task anew, for they hold it for settled."""
    _close: Close | None = None
    _replies: dict[str, Res] = field(default_factory=dict)
    """Those that count; without their parameters, where a sink takes these."""
    _unabsorbed: dict[str, Res] = field(default_factory=dict)
    """Those that the sink has not been given yet, whole."""
    _late: dict[LateReplyRef, Late] = field(default_factory=dict)
    _told: dict[str, _Told] = field(default_factory=dict)
    _words: Counter[Outcome] = field(default_factory=Counter)
    _absorbing: int = 0
    _adding: threading.Lock = field(default_factory=threading.Lock)
    _error: FlmqError | None = None

    @classmethod
    def create(cls, request: Request, *, label: str, now: float) -> PhaseInFlight:
        """Prepare to gather ``request``; nothing counts before `start`."""
        asks = {ask.client_id: ask for ask in request.asks}
        round_ = Round(tuple(ask.client_id for ask in request.asks), request.policy, label=label)
        return cls(
            request.server_round,
            request.phase,
            asks,
            round_,
            request.check,
            opened=now,
            sink=request.sink,
            hands_over=request.hands_over,
        )

    def start(self) -> list[ClientOutcome]:
        """Open the round."""
        return self._perform(self.round.open(), self.opened)

    def expects(self, client_id: str) -> bool:
        """Whether a reply of this client would settle its task."""
        return self.round.state is RoundState.OPEN and self.round.tasks.get(client_id) in (
            TaskState.PENDING,
            TaskState.UNROUTABLE,
        )

    def word_of_unexpected(self, client_id: str) -> Outcome:
        """What a reply is that would not settle its client's task: LATE or DUPLICATE."""
        late = self.round.tasks.get(client_id) in (TaskState.SILENT, TaskState.LOST)
        return Outcome.LATE if late else Outcome.DUPLICATE

    def judge(self, reply: Reply) -> Event:
        """Find out what ``reply`` is to the round. Reads, checks and changes nothing."""
        client_id, res = reply.client_id, reply.res
        if isinstance(res, Failure):
            return ReplyFailed(client_id, f"{res.exception_type}: {res.message}".rstrip(": "))
        ask = self.asks.get(client_id)
        if ask is None or self.round.state is RoundState.CLOSED:
            return ReplyAccepted(client_id)  # late or duplicate: nobody will look at it
        status = getattr(res, "status", None)
        if status is not None and status.code is not Code.OK:
            return ReplyFailed(client_id, f"{status.code.name}: {status.message}".rstrip(": "))
        problem = type_problem(self.phase, res) or self.check(ask.ins, res)
        return ReplyAccepted(client_id) if problem is None else ReplyRejected(client_id, problem)

    def take(self, event: Event, taken: Taken, note: str = "") -> list[ClientOutcome]:
        """Feed a reply that was judged; what became of it comes back.

        ``note`` is what there is to say of it where it is late.
        """
        self.bytes_up += taken.bytes
        return self._perform(self.round.handle(event), taken.at, taken, note)

    def carry(self, late: Late) -> bool:
        """Offer a late reply of an earlier round; whether it counts here: then `absorb_late`."""
        if not self.round.handle(LateReplyOffered(late.carried)):
            return False
        self._late[late.carried] = late if self.sink is None else replace(late, res=_bare(late.res))
        self._absorbing += self.sink is not None
        return True

    def absorb_late(self, late: Late, lock: threading.Lock) -> None:
        """Hand a late reply to the sink. Call it without the lock, after `carry`."""
        self._add_up(late.carried.client_id, late.res, lock)

    def absorb(self, taken: Taken, lock: threading.Lock) -> None:
        """Hand a reply that was accepted to the sink. Call it without the lock, after `take`."""
        client_id, res = taken.reply.client_id, taken.reply.res
        if self._unabsorbed.get(client_id) is not res:
            return
        del self._unabsorbed[client_id]
        assert isinstance(res, FitRes)
        self._add_up(client_id, res, lock)

    def _add_up(self, client: str, res: FitRes, lock: threading.Lock) -> None:
        if self.sink is None:
            return
        error: FlmqError | None = None
        try:
            with self._adding:
                self.sink.add(client, res)
        except (RunError, StoredDataError) as raised:
            error = raised
        except (OSError, MemoryError) as raised:
            error = NotAddedUp(client, raised)
        except Exception as raised:
            # Whatever it is, the round must not wait for ever for this reply.
            error = AggregationError(f"the reply of {client} cannot be added up: {raised}")
            error.__cause__ = raised
        with lock:
            self._error = self._error or error
            self._absorbing -= 1
            self._look()

    def feed(self, event: Event, now: float) -> list[ClientOutcome]:
        """Feed an event that is no reply, at ``now`` monotonic seconds."""
        return self._perform(self.round.handle(event), now)

    def result(self) -> PhaseResult:
        """What was gathered; the replies are handed over and no longer kept here."""
        close, closed = self._close, self.closed
        if close is None or closed is None:
            raise RuntimeError(f"{self.round.label} has not closed")
        words = Counter(outcome.outcome for outcome in self.round.outcomes())
        counts = RoundCounts(
            asked=len(self.round.tasks),
            accepted=words[Outcome.ACCEPTED],
            failed=words[Outcome.FAILED],
            rejected=words[Outcome.REJECTED],
            silent=words[Outcome.SILENT],
            unroutable=words[Outcome.UNROUTABLE],
            late=self._words[Outcome.LATE],
            duplicate=self._words[Outcome.DUPLICATE],
            carried=len(close.carried),
        )
        gathered = PhaseResult(
            replies={client_id: self._replies[client_id] for client_id in close.accepted},
            failures=self._failures(),
            counts=counts,
            seconds=closed - self.opened,
            bytes_down=self.bytes_down,
            bytes_up=self.bytes_up,
            reason=close.reason,
            enough=close.enough,
            error=self._error,
            late=tuple(self._late[each] for each in close.carried),
        )
        self.outlines = self._outlines() if self.hands_over else {}
        self._replies, self._late, self._told, self.asks = {}, {}, {}, {}
        return gathered

    def _outlines(self) -> dict[str, ParametersSpec]:
        """What each client was sent, but for the numbers; one object for what was shared."""
        seen: dict[int, ParametersSpec] = {}
        outlines: dict[str, ParametersSpec] = {}
        for client_id, ask in self.asks.items():
            if isinstance(ask.ins, FitIns):
                sent = ask.ins.parameters
                # What cannot be read has no outline, and no reply to it will fit.
                with contextlib.suppress(MalformedMessage):
                    if id(sent) not in seen:
                        seen[id(sent)] = spec_of(sent)
                    outlines[client_id] = seen[id(sent)]
        return outlines

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

    def _perform(
        self, actions: Sequence[Action], now: float, taken: Taken | None = None, note: str = ""
    ) -> list[ClientOutcome]:
        outcomes = []
        for action in actions:
            match action:
                case Settle(outcome):
                    self._words[outcome.outcome] += 1
                    mine = taken is not None and taken.reply.client_id == outcome.client_id
                    source = taken if mine else None
                    self._keep(outcome.client_id, outcome.outcome, source)
                    outcomes.append(
                        self._describe(
                            outcome.client_id, outcome.outcome, outcome.reason, source, note
                        )
                    )
                case Close():
                    self._close = action
        if self._close is not None and self.closed is None:
            self.closed = now
        self._look()
        return outcomes

    def _look(self) -> None:
        if self.closed is not None and self._absorbing == 0:
            self.done.set()

    def _keep(self, client_id: str, word: Outcome, taken: Taken | None) -> None:
        if taken is None:
            return
        res = taken.reply.res
        if word is Outcome.ACCEPTED and not isinstance(res, Failure):
            self._replies[client_id] = res
            if self.sink is not None and isinstance(res, FitRes):
                # Its object may be the user's own, and is left as it is.
                self._replies[client_id] = _bare(res)
                self._unabsorbed[client_id] = res
                self._absorbing += 1
        elif word is Outcome.FAILED:
            self._told[client_id] = (
                _Told(detail=res.traceback_tail) if isinstance(res, Failure) else _Told(res=res)
            )

    def _describe(
        self, client_id: str, word: Outcome, reason: str, taken: Taken | None, note: str
    ) -> ClientOutcome:
        res = None if taken is None else taken.reply.res
        if word is Outcome.LATE and taken is not None and self.closed is not None:
            after = f"{taken.at - self.closed:.1f} s after the round closed"
            reason = f"{after}, {note}" if note else after
        elif word is Outcome.SILENT and client_id in self.behind:
            reason = f"{reason}; it has not answered {self.behind[client_id]} yet either"
        return ClientOutcome(
            server_round=self.server_round,
            phase=self.phase,
            client_id=client_id,
            outcome=word,
            reason=reason,
            seconds=None if taken is None else taken.at - self.opened,
            num_examples=getattr(res, "num_examples", None),
            bytes_up=0 if taken is None else taken.bytes,
            detail=res.traceback_tail if isinstance(res, Failure) else "",
            metrics=getattr(res, "metrics", {}) if word is Outcome.ACCEPTED else {},
        )


def _bare(res: _Fit) -> _Fit:
    """A reply whose parameters are in a sum; whoever looks at it finds everything else."""
    return replace(res, parameters=Parameters([], res.parameters.tensor_type))
