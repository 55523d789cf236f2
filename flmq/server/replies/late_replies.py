"""Replies that come when their phase has closed: what each is, and which round it counts in.

A late reply that is to count (`LateReplyPolicy`) is first made durable, then offered to the fit
phase that is open; where none is, it waits for the next. Which phase it lands in is a race. The
closing set of that phase says who won it, and everything afterwards goes by that record: after a
restart what has not been taken waits again, and what has been taken is taken by the same phase.

Late to a phase is only what comes when its closing set is durable (`PhaseInFlight.final`): before,
another server could still count it there.
"""

from __future__ import annotations

import time

from flmq.common.errors import MalformedMessage
from flmq.common.phase import Phase
from flmq.common.typing import Code, FitRes
from flmq.journal.records import PhaseKey
from flmq.round import Event, Outcome, ReplyAccepted, ReplyFailed, ReplyRejected, RoundState
from flmq.server.asks.job import Job
from flmq.server.asks.phase_in_flight import PhaseInFlight
from flmq.server.asks.task_table import TaskTable
from flmq.server.replies.late import EXPIRED, Late, LateReplyPolicy, Verdict
from flmq.server.resumption.job_journal import JobJournal
from flmq.server.strategy.reply_check import ParametersSpec, spec_of
from flmq.wire import Failure, FailureKind, FileParameters, Reply

__all__ = ["LateReplyDesk"]


class LateReplyDesk:
    """The late replies of one job. Thread-safe, with the task table's lock where it says so."""

    def __init__(
        self,
        job: Job,
        table: TaskTable,
        job_journal: JobJournal | None,
        late_policy: LateReplyPolicy | None,
    ) -> None:
        """Judge late replies; without ``late_policy`` none counts."""
        self._job = job
        self._table = table
        self._job_journal = job_journal
        self._late_policy = late_policy
        self._clock = time.monotonic
        self._open: PhaseInFlight | None = None
        """The fit phase that takes late replies, or was the last to."""
        self._last = 0
        """The last round that has taken late replies, or could have."""
        self._model: ParametersSpec | None = None
        """What an earlier server's tasks had in them, as far as is known."""
        self._waiting: list[Late] = []
        if late_policy is not None and job_journal is not None:
            self._last = job_journal.last_fit_closed()
            self._waiting = job_journal.waiting_late()
            checkpoint = job_journal.resume()
            if checkpoint is not None:
                self._model = spec_of(checkpoint.parameters)

    # -- what a reply is ---------------------------------------------------------------------

    def wants(self, reply: Reply) -> bool:
        """Whether ``reply``, were it all here, would count in a later round than its own."""
        if self._late_policy is None or reply.phase is not Phase.FIT or not self._has_round():
            return False
        known = self._table.find(reply.task_id)
        if known is None:
            key = self.key_of(reply)
            return key is not None and self._word_of(key, reply.client_id) is Outcome.LATE
        return self.may_count(*known)

    def may_count(self, gather: PhaseInFlight, client_id: str) -> bool:
        """Whether a reply of this client to a phase that has closed would count in a later one."""
        if self._late_policy is None or not gather.hands_over or not self._has_round():
            return False
        closed = gather.round.state is RoundState.CLOSED
        return closed and gather.word_of_unexpected(client_id) is Outcome.LATE

    def may_want(self) -> bool:
        """Whether the reply to some task that is not known here may be wanted."""
        return self._late_policy is not None and self._job_journal is not None

    def judge(self, gather: PhaseInFlight | None, reply: Reply, event: Event) -> Verdict:
        """What a reply is that does not settle its task; ``gather`` is its phase where known.

        ``event`` says what is known to be wrong with it.
        """
        if gather is None:
            key = self.key_of(reply)
            if key is None or self._job_journal is None:
                return Verdict(Outcome.LATE, 0.0, None, "its round is long over")
            word = self._word_of(key, reply.client_id)
            seconds = self._job_journal.seconds_since_closed(key)
        else:
            key, closed = gather.key, gather.closed
            word = gather.word_of_unexpected(reply.client_id)
            seconds = 0.0 if closed is None else max(0.0, self._clock() - closed)
        if word is not Outcome.LATE:
            return Verdict(word, seconds, key)
        problem = _problem(reply, event)
        if problem is not None or not self.wants(reply):
            return Verdict(word, seconds, key, problem or "")
        problem = self._misfit(gather, reply)
        if problem is not None:
            return Verdict(word, seconds, key, f"rejected: {problem}")
        return Verdict(word, seconds, key, kept=True)

    def is_early(self, gather: PhaseInFlight | None, verdict: Verdict) -> bool:
        """Whether it is too early to be late: the closing set is not durable yet."""
        if gather is None or gather.final or verdict.outcome is not Outcome.LATE:
            return False
        return gather.key is not None or verdict.kept

    # -- where it counts ---------------------------------------------------------------------

    def offer(self, late: Late) -> tuple[int, PhaseInFlight | None]:
        """Have a late reply, which is durable, count. Call it with the lock held.

        Returns:
            The round that it counts in, and that round's phase if it is open: it then has to
            absorb the reply.
        """
        if self._open is not None and self._open.carry(late):
            return self._open.server_round, self._open
        self._waiting.append(late)
        return self._last + 1, None

    def admit(self, gather: PhaseInFlight) -> None:
        """Give a fit phase that has just been opened the late replies that count in it.

        Those that wait; where an earlier server has closed it, those that it closed it with.
        """
        recorded = None
        if self._job_journal is not None and gather.key is not None and gather.phase is Phase.FIT:
            recorded = self._job_journal.carried_into(gather.key)
        with self._table.lock:
            if recorded is not None:
                # Whatever is wanted now: a closing set is final.
                lates = recorded
            elif self._late_policy is not None and gather.hands_over:
                self._open = gather
                lates, self._waiting = self._waiting, []
            else:
                return
            self._last = max(self._last, gather.server_round)
            taken = [late for late in lates if gather.carry(late)]
        for late in taken:
            gather.absorb_late(late, self._table.lock)

    def _has_round(self) -> bool:
        """Whether there is a round to come, or open, in which a late reply can count."""
        assert self._late_policy is not None
        gather = self._open
        is_open = gather is not None and gather.round.state is RoundState.OPEN
        return is_open or self._last < self._late_policy.until

    def key_of(self, reply: Reply) -> PhaseKey | None:
        """The closed phase of an earlier server that a reply answers; None if there is none."""
        if self._job_journal is None:
            return None
        call = 0
        while True:
            key = PhaseKey(reply.server_round, reply.phase, call)
            if not self._job_journal.has_closed(key):
                return None
            task = self._job.task_id(reply.server_round, reply.phase, reply.client_id, call)
            if task == reply.task_id:
                return key
            call += 1

    def _word_of(self, key: PhaseKey, client_id: str) -> Outcome:
        """What a further reply to a phase of an earlier server is, by the phase's outcomes."""
        assert self._job_journal is not None
        unheard = (Outcome.SILENT, Outcome.UNROUTABLE)
        late = self._job_journal.outcome(key, client_id) in unheard
        return Outcome.LATE if late else Outcome.DUPLICATE

    def _misfit(self, gather: PhaseInFlight | None, reply: Reply) -> str | None:
        """Why a late reply is none to what was sent; None if it is one, or may be one yet."""
        assert self._late_policy is not None
        assert isinstance(reply.res, FitRes)
        if reply.blob is not None and not isinstance(reply.res.parameters, FileParameters):
            return "its parameters did not come"
        if gather is not None and not gather.final:
            return None
        outline = self._model if gather is None else gather.outlines.get(reply.client_id)
        if outline is None:
            return "what was sent is no longer known"
        try:
            return self._late_policy.check(outline, reply.res)
        except MalformedMessage as error:
            return str(error)


def _problem(reply: Reply, event: Event) -> str | None:
    """What is wrong with a reply whatever was asked; None: nothing."""
    res = reply.res
    if isinstance(res, Failure):
        said = f"{res.exception_type}: {res.message}".rstrip(": ")
        is_expired = res.kind is FailureKind.EXPIRED
        return f"{EXPIRED}: {res.message}" if is_expired else f"failed: {said}"
    match event:
        case ReplyRejected(_, reason):
            return f"rejected: {reason}"
        case ReplyFailed(_, reason):
            return f"failed: {reason}"
        case ReplyAccepted():
            status = getattr(res, "status", None)
            if status is not None and status.code is not Code.OK:
                return f"failed: {status.code.name}: {status.message}".rstrip(": ")
    return None
