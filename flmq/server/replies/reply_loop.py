"""The one loop that does about replies what the job's state says: journal, count, receipt, ack.

It decides nothing (`flmq.round.job` does). A reply is registered under a token, checked as the
state wants it checked, and fed to it; the actions that come back are performed in the order in
which they were decided, whoever's thread that is. Those that write to the journal are performed
first, many with one commit: what follows in the same turn is then durable.
"""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from flmq.common.crashpoints import crash_point
from flmq.common.errors import FlmqError, RunError
from flmq.common.logger import about, logger
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
    Entry,
    JobAction,
    JudgeAgain,
    Keep,
    SendReceipt,
    Verdict,
)
from flmq.round.job_events import Origin, PhaseClosedDurably, ReplyCame
from flmq.server.job.late import Late, late_of
from flmq.server.job.phase_in_flight import PhaseInFlight, Taken, described
from flmq.server.replies.reply_edges import InHand, ReplyEdges, ReplyEntry
from flmq.server.replies.reply_judge import ReplyJudge
from flmq.server.replies.task_directory import TaskDirectory
from flmq.wire import Reply

__all__ = ["NobodyListens", "ReplyLoop"]

_COMMIT_TOGETHER = 64
"""Replies that are written down with one commit, where so many wait."""


class NobodyListens(RunError):
    """What takes replies in came to its end by a fault."""

    def __init__(self, cause: BaseException) -> None:
        """Name the ``cause``."""
        super().__init__(
            f"replies can no longer be taken in ({type(cause).__name__}: {cause}): please report "
            "this with the log; where the job has a journal, start the server again to go on"
        )


class ReplyLoop:
    """Takes replies in. Thread-safe; ``lock`` guards the state and every phase in flight."""

    def __init__(self, state: JobState, edges: ReplyEdges) -> None:
        """Do what ``state`` says."""
        self.tasks = TaskDirectory(state, edges.record)
        self.lock, self.state = self.tasks.lock, state
        self.trouble: FlmqError | None = None
        """Why nothing is taken in any more, where that is so."""
        self._edges = edges
        self._judging = ReplyJudge(self.tasks, edges)
        self._actions: deque[JobAction] = deque()
        self._performing = threading.RLock()
        self._tokens = itertools.count(1)
        self._in_hand: dict[int, InHand] = {}
        self._late: dict[LateReplyRef, Late] = {}

    # -- for who hears -----------------------------------------------------------------------

    def take(
        self, reply: Reply, size: int, incoming: Incoming | None, *, spoiled: str = ""
    ) -> None:
        """Take in a reply that is all here; `perform` does about it what there is to do.

        ``incoming`` is acked once that is done. ``spoiled`` says why it came to nothing, if so.
        """
        token = self.register(reply, size, Origin.QUEUE)
        self._in_hand[token].incoming = incoming
        self._in_hand[token].spoiled = spoiled
        self._judge(token)

    @property
    def is_full(self) -> bool:
        """Whether so many replies wait to be dealt with that it is time."""
        return len(self._actions) >= 4 * _COMMIT_TOGETHER

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits to be done."""
        return not self._actions

    # -- for who asks ------------------------------------------------------------------------

    def add_late(self, lates: Iterable[Late]) -> None:
        """Keep at hand late replies of earlier servers, which the state names."""
        self._late.update((late.ref, late) for late in lates)

    def open(self, phase: PhaseInFlight, events: Callable[[ReplyLoop], Sequence[JobEvent]]) -> None:
        """Open a phase, and count at once what an earlier server had taken in of it.

        ``events`` gives what to feed, the opening first. It is called when all that was decided
        is durable, and what it gives is fed before anything else is decided: a second answer of a
        client cannot count before the first one, which is in the record.
        """
        with self._performing:
            while True:
                self.perform()
                fed = events(self)
                with self.lock:
                    if any(isinstance(a, Enter) and a.key == phase.key for a in self._actions):
                        # Of this phase, and not in what the record gave: it is read again.
                        for event in fed:
                            if isinstance(event, ReplyCame):
                                self._in_hand.pop(event.token)
                        continue
                    self.tasks.add(phase)
                    for event in fed:
                        self._actions += self.state.handle(event)
                    phase.round = self.state.round_of(phase.key)
                break
            self.perform()

    def register(self, reply: Reply, size: int, origin: Origin) -> int:
        """A token for a reply, for a `ReplyCame`."""
        token = next(self._tokens)
        self._in_hand[token] = InHand(reply, size, self._edges.clock(), None, origin)
        return token

    def feed(self, event: JobEvent, *, perform: bool = True) -> None:
        """Feed an event that is no reply; not ``perform``, its actions wait for somebody who may.

        Raises:
            FlmqError: nothing can be taken in any more, and why.
        """
        with self.lock:
            self._actions += self.state.handle(event)
            if not perform:
                for phase in self.tasks.open_phases():
                    phase.wake.set()
        if perform:
            self.perform()

    def close(self, key: PhaseKey) -> None:
        """Say that a phase's closing set is durable: what comes from now on is late for good."""
        self.feed(PhaseClosedDurably(key))
        with self.lock:
            self.tasks.forget()

    def perform(self) -> None:
        """Do what there is to do, in order.

        Raises:
            FlmqError: nothing can be taken in any more, and why.
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
                raise  # of the person who stops the run
            except BaseException as error:
                # Also sys.exit() in a strategy's code that was called here.
                logger.exception("replies can no longer be taken in")
                trouble = NobodyListens(error)
                self.give_up(trouble)
                raise trouble from error

    def perform_if_free(self) -> bool:
        """As `perform`, but where somebody else is at it, leave it to them; whether it was done.

        For the listener, which must go on hearing while a phase is read from the record.
        """
        if not self._performing.acquire(blocking=False):
            return False
        try:
            self.perform()
        finally:
            self._performing.release()
        return True

    def give_up(self, error: FlmqError) -> None:
        """Take nothing in any more: no phase can close, so who waits is woken to find ``error``."""
        with self.lock:
            self.trouble = self.trouble or error
            phases = self.tasks.open_phases()
        for phase in phases:
            phase.end()

    # -- judged ------------------------------------------------------------------------------

    def _judge(self, token: int) -> None:
        """Check a reply as the state wants it, and feed it; again, where that changed meanwhile."""
        while True:
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

    # -- performed ---------------------------------------------------------------------------

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
        entries = [
            ReplyEntry(each, self._of(each).reply, self._of(each).size)
            for each in turn
            if isinstance(each, Enter)
        ]
        if not entries:
            return
        assert self._edges.record is not None
        self._edges.record.enter(entries)
        if any(each.action.entry is not Entry.LATE for each in entries):
            crash_point("server.reply_journalled")
        if any(each.action.verdict.into is not None for each in entries):
            crash_point("server.late_journalled")

    def _do(self, action: JobAction) -> None:
        match action:
            case Enter():
                pass  # done, with all others of its turn
            case Count():
                self._count(action)
            case Carry(key, ref):
                self._in_flight(key).carry(self._late.pop(ref), self.lock)
            case SendReceipt(token, verdict):
                reply = self._in_hand[token].reply
                self._edges.receipt(reply, *_told(verdict), verdict.late_by)
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
        taken = None if hand is None else Taken(hand.reply, hand.size, hand.at)
        phase = self.tasks.phase(action.key)
        if phase is None:
            self._edges.emit(described(action.key, action.ask, action.verdict, taken))
            return
        with self.lock:
            event = phase.count(action.ask, action.verdict, taken)
        self._edges.emit(event)
        if taken is not None and action.verdict.outcome is Outcome.ACCEPTED:
            phase.add_up(action.ask, taken, self.lock)
        if hand is not None and hand.origin is Origin.RECORD:
            self._in_hand.pop(action.token or 0)


def _told(verdict: Verdict) -> tuple[Outcome, str]:
    """Return the outcome of a reply and its reason as its client is told them."""
    outcome, reason = verdict.outcome, verdict.reason
    if verdict.into is not None:
        return Outcome.ACCEPTED, f"accepted late into round {verdict.into}"
    if outcome is not Outcome.LATE:
        return outcome, reason
    if verdict.late_by == 0.0 and verdict.note:
        return outcome, verdict.note
    dropped = f"late by {verdict.late_by:.1f} s, dropped"
    return outcome, f"{dropped}: {verdict.note}" if verdict.note else dropped
