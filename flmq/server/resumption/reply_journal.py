"""Replies in a job's journal: recorded before they count, read again by a later server."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import cast

from flmq.common.parameter import parameters_of, with_parameters
from flmq.common.phase import Phase
from flmq.common.times import TaskTimes
from flmq.common.typing import Parameters
from flmq.journal.journal import Journal
from flmq.journal.records import UNJUDGED, Contribution, LateEntry, Part, PhaseKey, RecordedSum
from flmq.round import Outcome, ReplyAccepted, ReplyFailed, ReplyRejected, client_of
from flmq.round.job_actions import Entry
from flmq.round.job_events import Claim, Recorded
from flmq.server.job.late import Late, late_of
from flmq.server.job_identity import Job
from flmq.server.replies.reply_edges import ReplyEntry, SumInRecord
from flmq.server.replies.spool import SpooledParameters
from flmq.server.resumption.closed_asks import ClosedAsks
from flmq.wire import Failure, FileParameters, Reply, decode, encode, without_unknown

__all__ = ["RecordedReply", "ReplyJournal"]

_SMALL = 64 * 1024
"""Bytes of a reply that is recorded as it came. One that is larger is written anew: what we cut
short as we read it, such as the text of a failure, takes no space."""


@dataclass(frozen=True, slots=True)
class RecordedReply:
    """A reply that an earlier server recorded."""

    ask: str
    claim: Claim | None
    """None if it came before its phase was opened again, and was not checked."""
    reply: Reply
    size: int
    """Bytes received for it."""
    order_id: str = ""
    """Task id of the order whose partial sum it is in; empty: it came by itself."""
    times: TaskTimes | None = None
    """The course of its task; None: an older flmq recorded it."""


class ReplyJournal:
    """The replies of one job. Thread-safe; raises `Fenced` once another server is in charge."""

    def __init__(self, journal: Journal, job: Job) -> None:
        """Record replies to the tasks of ``job`` in ``journal``."""
        self._journal = journal
        self._phases = journal.phases
        self._looking = threading.Lock()
        self._closed_asks = ClosedAsks(
            journal.phases,
            lambda key, ask: job.task_id(key.server_round, key.phase, ask, key.call),
        )

    # -- entering ----------------------------------------------------------------------------

    def enter(self, entries: Sequence[ReplyEntry], sums: Sequence[SumInRecord] = ()) -> None:
        """Record replies: all that came in one transaction, then the verdicts on earlier ones."""
        replies = [each for each in entries if each.action.entry in (Entry.REPLY, Entry.UNJUDGED)]
        late = [each for each in entries if each.action.entry is Entry.LATE]
        if replies or late or sums:
            self._phases.take_in(
                [(each.action.key, self._contribution(each)) for each in replies],
                [self._late_entry(each) for each in late],
                [(each.key, self._recorded_sum(each)) for each in sums],
            )
        for each in entries:
            if each.action.entry is Entry.JUDGED:
                action, verdict = each.action, each.action.verdict
                self._phases.judge(action.key, action.ask, verdict.outcome, verdict.reason)

    def _contribution(self, entry: ReplyEntry) -> Contribution:
        """Return the record of a reply, having adopted its parameters' file."""
        verdict, reply = entry.action.verdict, entry.reply
        reason = UNJUDGED if entry.action.entry is Entry.UNJUDGED else verdict.reason
        encoded = entry.encoded
        if verdict.outcome is Outcome.REJECTED:
            reply, encoded = _bare(reply), b""  # nobody looks at what it brought
        ask = entry.action.ask
        made = self._adopted(ask, verdict.outcome, reason, reply, entry.size, encoded)
        return replace(made, order_id=entry.order_id, times=entry.times)

    def _recorded_sum(self, entry: SumInRecord) -> RecordedSum:
        """Return the record of a partial sum, having adopted its file."""
        partial, parameters = entry.partial, entry.partial.parameters
        assert isinstance(parameters, SpooledParameters)
        ref = parameters.ref
        parameters.keep(self._journal.adopt_reply(partial.task_id, parameters.path, ref))
        return RecordedSum(partial.task_id, ref, entry.size)

    def _late_entry(self, entry: ReplyEntry) -> LateEntry:
        action, verdict, reply = entry.action, entry.action.verdict, entry.reply
        parameters = parameters_of(reply.res)
        is_kept = verdict.into is not None
        if not is_kept and isinstance(parameters, SpooledParameters):
            # It may have been written down before, as one in time.
            self._journal.release_reply(reply.task_id, parameters.ref)
        kept = self._adopted(action.ask, Outcome.LATE, "", reply, entry.size) if is_kept else None
        return LateEntry(
            action.key,
            action.ask,
            verdict.outcome,
            verdict.late_by,
            verdict.note,
            kept,
            _late_part(entry),
        )

    def _adopted(
        self,
        ask: str,
        kind: Outcome,
        reason: str,
        reply: Reply,
        size: int,
        encoded: bytes = b"",
    ) -> Contribution:
        """Return the record of a reply; ``encoded`` are its bytes, if known."""
        ref = None
        parameters = parameters_of(reply.res)
        if isinstance(parameters, FileParameters):
            # In the spool; or here already, where it came before its phase was opened again.
            ref = parameters.ref
            path = self._journal.adopt_reply(reply.task_id, parameters.path, ref)
            if isinstance(parameters, SpooledParameters):
                parameters.keep(path)
            reply, encoded = replace(_bare(reply), blob=ref), b""
        return Contribution(
            client_id=ask,
            task_id=reply.task_id,
            kind=kind,
            reason=reason,
            reply=without_unknown(encoded) if 0 < len(encoded) <= _SMALL else encode(reply),
            blob=ref,
            size=size,
        )

    # -- reading -----------------------------------------------------------------------------

    def replies(self, key: PhaseKey) -> Iterator[RecordedReply]:
        """Yield a phase's recorded replies in the order of arrival; if it is closed, its set's."""
        if self._phases.elapsed(key) is None:
            return
        closed, settled = self._phases.closed(key), None
        if closed is not None:
            # What came when the phase had closed is not of its set, though it was written down.
            settled = {(outcome.client_id, outcome.outcome) for outcome in closed.outcomes}
        for each in self._phases.contributions(key):
            if settled is None or (each.client_id, each.kind) in settled:
                reply = self._reply(each)
                times = each.times and replace(each.times, worker=reply.times)
                yield RecordedReply(
                    each.client_id, _claim(each), reply, each.size, each.order_id, times
                )

    def sums(self, key: PhaseKey) -> dict[str, tuple[Parameters, int]]:
        """Return a phase's recorded partial sums by order: their tensors, and bytes received."""
        sums = () if self._phases.elapsed(key) is None else self._phases.sums(key)
        return {each.order_id: (self._journal.sum_parameters(each), each.size) for each in sums}

    def recorded(self, reply: Reply) -> Recorded | None:
        """Return what is known of the closed phase that a reply answers; None if there is none."""
        with self._looking:
            found = self._closed_asks.find(reply.server_round, reply.phase, reply.task_id)
        if found is None or client_of(found.name) != reply.client_id:
            return None
        key, ask = found.key, found.name
        answered = found.in_time or self._phases.has_answered_late(key, ask)
        return Recorded(key, ask, answered, self._phases.seconds_since_closed(key) or 0.0)

    def answered_late(self, key: PhaseKey) -> frozenset[str]:
        """Return the asks of a closed phase whose first reply came late."""
        return self._phases.answered_late(key)

    def waiting_late(self) -> list[Late]:
        """Return the late replies kept for a later round that has not closed."""
        return [late_of(self._reply(each.contribution)) for each in self._phases.waiting_late()]

    def carried_into(self, key: PhaseKey) -> list[Late] | None:
        """Return the late replies that count in a phase; None if it is not closed."""
        if self._phases.closed(key) is None:
            return None
        return [late_of(self._reply(each.contribution)) for each in self._phases.carried_into(key)]

    def last_fit_closed(self) -> int:
        """Return the last round whose training has closed; 0 if none has."""
        return self._phases.last_closed(Phase.FIT)

    def most_asked(self) -> int:
        """Return how many clients may have been asked at once, by this server or earlier ones."""
        return self._phases.most_asked()

    def _reply(self, contribution: Contribution) -> Reply:
        """Decode a reply, with its parameters mapped from disk."""
        reply = cast(Reply, decode(contribution.reply, our_own=True))
        parameters = self._journal.reply_parameters(contribution)
        if parameters is None:
            return reply
        return replace(reply, res=with_parameters(reply.res, parameters), blob=None)


def _bare(reply: Reply) -> Reply:
    """Return the reply without its parameters' bytes."""
    return replace(reply, res=with_parameters(reply.res, Parameters([], "")))


def _late_part(entry: ReplyEntry) -> Part:
    """Return what the client of a late or duplicate reply did."""
    verdict, res = entry.action.verdict, entry.reply.res
    return Part(
        entry.action.ask,
        verdict.outcome,
        verdict.note,
        res.traceback_tail if isinstance(res, Failure) else "",
        num_examples=getattr(res, "num_examples", None),
        bytes=entry.size,
        metrics=getattr(res, "metrics", {}),
        times=entry.times,
        late_by=verdict.late_by,
    )


def _claim(contribution: Contribution) -> Claim | None:
    client_id, reason = contribution.client_id, contribution.reason
    if reason == UNJUDGED:
        return None
    match contribution.kind:
        case Outcome.ACCEPTED:
            return ReplyAccepted(client_id)
        case Outcome.FAILED:
            return ReplyFailed(client_id, reason)
        case _:
            return ReplyRejected(client_id, reason)
