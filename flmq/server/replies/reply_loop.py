"""Carry out what the job's state decides about replies: journal, count, receipt, ack.

`flmq.round.job` decides; this loop performs. A reply is registered under a token, checked as the
state requires, and fed to the state. The resulting actions are performed in the order in which they
were decided, on any thread. In each turn journal writes come first, many in one commit, so that
the other actions only act on durable replies.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flmq.common.crashpoints import crash_point
from flmq.common.errors import FlmqError
from flmq.common.logger import about, logger
from flmq.common.times import TaskTimes
from flmq.messaging import Incoming
from flmq.round import (
    JobEvent,
    JobState,
    LateReplyRef,
    Outcome,
    PhaseKey,
)
from flmq.round.fates import Fate
from flmq.round.job_actions import (
    Ack,
    Carry,
    ClosePhase,
    Count,
    Enter,
    EnterSum,
    Entry,
    JobAction,
    JudgeAgain,
    Keep,
    Merge,
    Refuse,
    SendReceipt,
)
from flmq.round.job_events import Origin, PhaseClosedDurably, ReplyCame, SumCame
from flmq.server.job.late import Late, late_of
from flmq.server.job.outcomes import described
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.replies.outcomes import NobodyListens, told_of
from flmq.server.replies.reply_edges import InHand, ReplyEdges, SumInRecord
from flmq.server.replies.reply_judge import ReplyJudge
from flmq.server.replies.sums import Sums
from flmq.server.replies.task_directory import TaskDirectory
from flmq.wire import PartialSum, Reply

__all__ = ["ReplyLoop"]

_COMMIT_TOGETHER = 64
"""Number of replies to write with one commit, if that many wait."""


class ReplyLoop:
    """Takes in replies. Thread-safe; ``lock`` guards the state and every phase in flight."""

    def __init__(self, state: JobState, edges: ReplyEdges) -> None:
        """Perform what ``state`` decides."""
        self.tasks = TaskDirectory(state, edges.record)
        self.lock, self.state = self.tasks.lock, state
        self.trouble: FlmqError | None = None
        """Why no more replies are taken in. None: they still are."""
        self._edges = edges
        self._judging = ReplyJudge(self.tasks, edges)
        self._actions: deque[JobAction] = deque()
        self._performing = threading.RLock()
        self._tokens = itertools.count(1)
        self._in_hand: dict[int, InHand] = {}
        self._late: dict[LateReplyRef, Late] = {}
        self.sums = Sums(self.tasks, edges, self._in_hand, self._tokens)

    # -- for the listener --------------------------------------------------------------------

    def take(
        self,
        reply: Reply,
        size: int,
        incoming: Incoming | None,
        *,
        spoiled: str = "",
        encoded: bytes = b"",
    ) -> None:
        """Take in a complete reply of ``size`` bytes; `perform` then deals with it.

        ``incoming`` is acked after that. ``spoiled`` says why the transfer failed (empty: it did
        not). ``encoded`` are the reply's own bytes, if it came in one message.
        """
        token = self.register(reply, size, Origin.QUEUE)
        hand = self._in_hand[token]
        hand.incoming, hand.spoiled = incoming, spoiled
        if encoded:
            hand.came = reply, encoded
        self._judge(token)

    def take_sum(
        self, partial: PartialSum, size: int, incoming: Incoming | None, *, problem: str = ""
    ) -> None:
        """Take in a complete partial sum of a known order; ``problem``: why it cannot count."""
        self._judge(self.sums.take(partial, size, incoming, problem))

    @property
    def is_full(self) -> bool:
        """Whether so many actions wait that they must be performed now."""
        return len(self._actions) >= 4 * _COMMIT_TOGETHER

    @property
    def is_idle(self) -> bool:
        """Whether no action waits to be performed."""
        return not self._actions

    # -- for the phases' owner ---------------------------------------------------------------

    def add_late(self, lates: Iterable[Late]) -> None:
        """Keep late replies that earlier servers took in; the state refers to them."""
        self._late.update((late.ref, late) for late in lates)

    def open(self, phase: PhaseInFlight, events: Callable[[ReplyLoop], Sequence[JobEvent]]) -> None:
        """Open a phase, and count at once the replies that an earlier server took in for it.

        ``events`` returns the events to feed, the opening first. It is called when all decisions
        so far are durable, and its events are fed before anything else is decided: a client's
        second answer cannot count before its first one, which is in the record.
        """
        with self._performing:
            while True:
                self.perform()
                fed = events(self)
                with self.lock:
                    if any(isinstance(a, Enter) and a.key == phase.key for a in self._actions):
                        # A reply to this phase came after the record was read: read it again.
                        for event in fed:
                            if isinstance(event, ReplyCame):
                                self._in_hand.pop(event.token)
                            elif isinstance(event, SumCame):
                                self.sums.release(event.token)
                        continue
                    self.tasks.add(phase)
                    for event in fed:
                        self._actions += self.state.handle(event)
                    phase.round = self.state.round_of(phase.key)
                break
            self.perform()

    def register(
        self, reply: Reply, size: int, origin: Origin, times: TaskTimes | None = None
    ) -> int:
        """Register a reply of ``size`` bytes; return its token, for a `ReplyCame`.

        ``times``: the course of its task, if it is recorded.
        """
        token, edges = next(self._tokens), self._edges
        self._in_hand[token] = InHand(
            reply,
            size,
            edges.clock(),
            None,
            origin,
            received_ms=edges.now_ms(),
            times=times,
        )
        return token

    def feed(self, event: JobEvent, *, perform: bool = True) -> None:
        """Feed an event that is not a reply; without ``perform``, leave its actions for later.

        Raises:
            FlmqError: why no more replies can be taken in.
        """
        with self.lock:
            self._actions += self.state.handle(event)
            if not perform:
                for phase in self.tasks.open_phases():
                    phase.wake.set()
        if perform:
            self.perform()

    def close(self, key: PhaseKey) -> None:
        """Note that a phase's closing set is durable: any later reply to it is late for good."""
        self.feed(PhaseClosedDurably(key))
        with self.lock:
            self.tasks.forget()

    def perform(self) -> None:
        """Perform all waiting actions, in order.

        Raises:
            FlmqError: why no more replies can be taken in.
        """
        with self._performing:
            if self.trouble is not None:
                raise self.trouble
            try:
                while turn := self._next_turn():
                    self._enter(turn)
                    for action in turn:
                        self._do(action)
            except FlmqError as error:
                self.give_up(error)
                raise
            except KeyboardInterrupt as error:
                self.give_up(NobodyListens(error))
                raise  # the user is stopping the run
            except BaseException as error:
                # This includes sys.exit() in a strategy's code called from here.
                logger.exception("replies can no longer be taken in")
                trouble = NobodyListens(error)
                self.give_up(trouble)
                raise trouble from error

    def perform_if_free(self) -> bool:
        """Call `perform` unless another thread is in it; return whether it was called.

        For the listener, which must go on receiving while a phase is read from the record.
        """
        if not self._performing.acquire(blocking=False):
            return False
        try:
            self.perform()
        finally:
            self._performing.release()
        return True

    def give_up(self, error: FlmqError) -> None:
        """Take in no more replies; wake whoever waits for a phase, to find ``error``."""
        with self.lock:
            self.trouble = self.trouble or error
            phases = self.tasks.open_phases()
        for phase in phases:
            phase.end()

    # -- checking ----------------------------------------------------------------------------

    def _judge(self, token: int) -> None:
        """Check a reply and feed it to the state; repeat if its fate has changed meanwhile."""
        event: ReplyCame | SumCame
        while True:
            if token in self.sums:
                event = self.sums.judge(token)
            else:
                event = self._judging.judge(token, self._in_hand[token])
            with self.lock:
                actions = self.state.handle(event)
                if actions == [JudgeAgain(token)]:
                    continue
                self._actions += actions
            break
        if event.fate is Fate.UNKNOWN and self._edges.record is not None:
            reply = self._in_hand[token].reply
            logger.info(
                "a reply of %s to round %d, %s, came before it was asked for: it is taken when it "
                "is",
                reply.client_id,
                reply.server_round,
                reply.phase.value,
                extra=about(reply),
            )

    # -- performing --------------------------------------------------------------------------

    def _next_turn(self) -> list[JobAction]:
        with self.lock:
            turn, self._actions = list(self._actions), deque()
        for action in turn:
            if isinstance(action, Count) and action.verdict.into is not None:
                late = late_of(self._of(action).reply)
                self._late[late.ref] = late
        return turn

    def _of(self, action: Enter | Count | SendReceipt | Ack | Keep) -> InHand:
        assert action.token is not None
        return self._in_hand[action.token]

    def _enter(self, turn: Sequence[JobAction]) -> None:
        sums = [each for each in turn if isinstance(each, EnterSum)]
        for each in turn:
            if isinstance(each, Enter):
                self._of(each).stamp(self.tasks.phase(each.key), each.ask, self._edges)
        entries = [self._of(each).entry(each) for each in turn if isinstance(each, Enter)]
        if not (entries or sums):
            return
        assert self._edges.record is not None
        in_hand = [(each.key, self.sums[each.token]) for each in sums]
        if sums:
            crash_point("server.sum_checked")
        self._edges.record.enter(
            entries, [SumInRecord(key, hand.sum, hand.size) for key, hand in in_hand]
        )
        if sums:
            crash_point("server.sum_journalled")
        if any(each.action.entry is not Entry.LATE for each in entries):
            crash_point("server.reply_journalled")
        if any(each.action.verdict.into is not None for each in entries):
            crash_point("server.late_journalled")

    def _do(self, action: JobAction) -> None:
        match action:
            case Enter() | EnterSum():
                pass  # already done by `_enter`, for the whole turn
            case Merge(token, key):
                self.sums.merge(key, token)
            case Refuse(token, key, reason):
                self.sums.refuse(key, token, reason)
            case SendReceipt(token, verdict) if token in self.sums:
                self._edges.sum_receipt(*self.sums.named(token), *told_of(verdict))
            case Ack(token) if token in self.sums:
                if (brought := self.sums.release(token).incoming) is not None:
                    self._edges.ack(brought)
            case Count():
                self._count(action)
            case Carry(key, ref):
                self._in_flight(key).carry(self._late.pop(ref), self.lock)
            case SendReceipt(token, verdict):
                reply = self._in_hand[token].reply
                self._edges.receipt(reply, *told_of(verdict), verdict.late_by)
            case Ack(token):
                hand = self._in_hand.pop(token)
                if hand.incoming is not None:
                    self._edges.ack(hand.incoming)
            case Keep(token):
                hand = self._in_hand[token]
                if hand.incoming is not None:
                    self._edges.ack(hand.incoming)
                hand.incoming = None
            case JudgeAgain(token):
                self._judge(token)
            case ClosePhase(key, close):
                with self.lock:
                    self._in_flight(key).close(close, self._edges.clock())

    def _in_flight(self, key: PhaseKey) -> PhaseInFlight:
        phase = self.tasks.phase(key)
        assert phase is not None
        return phase

    def _count(self, action: Count) -> None:
        hand = None if action.token is None else self._of(action)
        phase = self.tasks.phase(action.key)
        if hand is not None:
            hand.stamp(phase, action.ask, self._edges)
        taken = None if hand is None else hand.taken()
        if phase is None:
            self._edges.emit(described(action.key, action.ask, action.verdict, taken))
            return
        with self.lock:
            event = phase.count(action.ask, action.verdict, taken)
        self._edges.emit(event)
        is_summed = hand is not None and bool(hand.order_id)
        if taken is not None and action.verdict.outcome is Outcome.ACCEPTED and not is_summed:
            phase.add_up(action.ask, taken, self.lock)
        if hand is not None and hand.origin is Origin.RECORD and not is_summed:
            self._in_hand.pop(action.token or 0)
