"""A job's journal as its server uses it: phases planned, replies taken in, rounds closed.

Everything here is durable before it returns, and raises `Fenced` once another server is in charge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from flmq.common.parameter import parameters_of, with_parameters
from flmq.common.phase import Phase
from flmq.common.typing import (
    Parameters,
)
from flmq.journal.errors import JournalGone, JournalNotWritable
from flmq.journal.journal import Journal
from flmq.journal.records import (
    UNJUDGED,
    CarriedReply,
    Checkpoint,
    ClosedPhase,
    Contribution,
    LateEntry,
    PhaseKey,
    Plan,
    PlannedAsk,
)
from flmq.journal.state import StateValue
from flmq.round import Event, Outcome, ReplyAccepted, ReplyFailed, ReplyRejected, TaskOutcome
from flmq.server.asks.phase_in_flight import Ask, PhaseResult, Request
from flmq.server.history import History
from flmq.server.replies.late import Late, Verdict, late_of
from flmq.server.replies.spool import SpooledParameters, SpoolFailed
from flmq.wire import FileParameters, Reply, Task, decode, encode

__all__ = ["JobJournal", "LateArrival", "Planned", "Settling"]


@dataclass(frozen=True, slots=True)
class Planned:
    """Whom an earlier server of the job chose to ask, and what its strategy's state was then."""

    asks: list[Ask]
    state: Mapping[str, StateValue]


@dataclass(frozen=True, slots=True)
class Settling:
    """A reply that settles its client's task."""

    key: PhaseKey
    event: Event | None
    """None: it cannot be judged before its phase is opened again."""
    reply: Reply
    size: int
    """Bytes that came for it."""


@dataclass(frozen=True, slots=True)
class LateArrival:
    """A reply that settles nothing, with what it is; its verdict has a key."""

    reply: Reply
    size: int
    verdict: Verdict


class JobJournal:
    """The journal of one job, with one server in charge. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        """Write to ``journal``, of which this process has taken charge."""
        self._journal = journal
        self._awaited = self._left_open()
        """Tasks of phases that an earlier server left open, until they are opened here."""

    @property
    def finished(self) -> bool:
        """Whether the job was brought to its end before."""
        return self._journal.finished is not None

    def cause_of(self, error: BaseException) -> BaseException:
        """What ended the run: its folder's going, not the file that was missed first."""
        missed = isinstance(error, JournalNotWritable | SpoolFailed)
        return JournalGone(self._journal.folder) if missed and self._journal.gone else error

    # -- phases ------------------------------------------------------------------------------

    def planned(self, key: PhaseKey) -> Planned | None:
        """The plan of a phase that an earlier server made; None if there is none."""
        record = self._journal.find_phase(key)
        if record is None:
            return None
        models: dict[str, Parameters] = {}
        asks = [self._ask(planned, models) for planned in record.plan.asks]
        return Planned(asks, record.plan.state)

    def open_phase(self, key: PhaseKey, tasks: Sequence[Task], request: Request) -> float | None:
        """Enter a phase's plan; None, where it is new.

        Where an earlier server has entered it: the seconds for which it has been open under a
        server in charge.
        """
        record = self._journal.find_phase(key)
        if record is not None:
            return record.elapsed
        models = {
            task.model: parameters
            for task, ask in zip(tasks, request.asks, strict=True)
            if task.model is not None and (parameters := parameters_of(ask.ins)) is not None
        }
        for ref, parameters in models.items():
            self._journal.put_parameters(parameters, ref)
        asks = tuple(
            PlannedAsk(
                client_id=task.client_id,
                task_id=task.task_id,
                task=encode(task),
                model=None if task.model is None else task.model.digest,
            )
            for task in tasks
        )
        plan = Plan(asks, request.timeout, request.policy, request.state or {})
        self._journal.open_phase(key, plan)
        return None

    def tick(self, key: PhaseKey, elapsed: float) -> None:
        """Note for how many seconds a phase has been open."""
        self._journal.tick(key, elapsed)

    def take_in(self, settling: Sequence[Settling], late: Sequence[LateArrival]) -> list[Outcome]:
        """Take in replies, all of them in one commit; the words of the late ones.

        A late reply to a task that has had one is DUPLICATE, and not kept.
        """
        return self._journal.take_in(
            [(each.key, self._contribution(each)) for each in settling],
            [self._late_entry(each) for each in late],
        )[1]

    def _contribution(self, settling: Settling) -> Contribution:
        """What to enter for a reply; its parameters on disk are adopted on the way."""
        reply = settling.reply
        match settling.event:
            case None:
                kind, reason = Outcome.ACCEPTED, UNJUDGED
            case ReplyAccepted():
                kind, reason = Outcome.ACCEPTED, ""
            case ReplyFailed(_, reason):
                kind = Outcome.FAILED
            case ReplyRejected(_, reason):
                # Nobody looks at what it brought.
                kind, reply = Outcome.REJECTED, _bare(reply)
            case _:
                raise TypeError(f"{type(settling.event).__name__} is no reply")
        return self._adopted(kind, reason, reply, settling.size)

    def _late_entry(self, late: LateArrival) -> LateEntry:
        verdict = late.verdict
        assert verdict.key is not None
        parameters = parameters_of(late.reply.res)
        if not verdict.kept and isinstance(parameters, SpooledParameters):
            # It may have been written down as one in time, a moment after its phase closed.
            self._journal.release_reply(late.reply.task_id, parameters.ref)
        return LateEntry(
            verdict.key,
            late.reply.client_id,
            verdict.outcome,
            verdict.seconds,
            verdict.note,
            self._adopted(Outcome.LATE, "", late.reply, late.size) if verdict.kept else None,
        )

    def _adopted(self, kind: Outcome, reason: str, reply: Reply, size: int) -> Contribution:
        ref = None
        parameters = parameters_of(reply.res)
        if isinstance(parameters, FileParameters):
            # In the spool; or here already, where it came before its phase was opened again.
            ref = parameters.ref
            path = self._journal.adopt_reply(reply.task_id, parameters.path, ref)
            if isinstance(parameters, SpooledParameters):
                parameters.keep(path)
            reply = replace(_bare(reply), blob=ref)
        return Contribution(
            client_id=reply.client_id,
            task_id=reply.task_id,
            kind=kind,
            reason=reason,
            reply=encode(reply),
            blob=ref,
            size=size,
        )

    def replies(self, key: PhaseKey) -> Iterator[tuple[Event | None, Reply, int]]:
        """What has been taken in of a phase, in that order: how, what, and its bytes.

        It is not judged yet (None) where it came before its phase was opened again: `judge`.
        """
        record = self._journal.find_phase(key)
        if record is None:
            return
        settled = None
        if record.closed is not None:
            # What came when the phase had closed is not of its set, though it was written down.
            settled = {(outcome.client_id, outcome.outcome) for outcome in record.closed.outcomes}
        for each in record.contributions:
            if settled is not None and (each.client_id, each.kind) not in settled:
                continue
            yield _event(each), self._reply(each), each.size

    def judge(self, key: PhaseKey, event: Event) -> None:
        """Enter what a reply is that had come before its phase was opened again."""
        match event:
            case ReplyAccepted(client_id):
                self._journal.judge(key, client_id, Outcome.ACCEPTED, "")
            case ReplyFailed(client_id, reason):
                self._journal.judge(key, client_id, Outcome.FAILED, reason)
            case ReplyRejected(client_id, reason):
                self._journal.judge(key, client_id, Outcome.REJECTED, reason)
            case _:
                raise TypeError(f"{type(event).__name__} is no reply")

    def _reply(self, contribution: Contribution) -> Reply:
        """The reply as it was, its parameters on disk."""
        reply = cast(Reply, decode(contribution.reply, our_own=True))
        parameters = self._journal.reply_parameters(contribution)
        if parameters is None:
            return reply
        return replace(reply, res=with_parameters(reply.res, parameters), blob=None)

    # -- late replies ------------------------------------------------------------------------

    def waiting_late(self) -> list[Late]:
        """Late replies that are to count in a later round and that none has taken."""
        return [self._late(each) for each in self._journal.waiting_late()]

    def carried_into(self, key: PhaseKey) -> list[Late] | None:
        """Late replies that a phase was closed with; None if it has not been closed."""
        if not self.has_closed(key):
            return None
        return [self._late(each) for each in self._journal.carried_into(key)]

    def last_fit_closed(self) -> int:
        """The last round whose training has closed; 0 if none has."""
        return self._journal.last_closed(Phase.FIT)

    def has_closed(self, key: PhaseKey) -> bool:
        """Whether a phase was closed."""
        return self._journal.closed_phase(key) is not None

    def outcome(self, key: PhaseKey, client_id: str) -> Outcome | None:
        """What became of a client's task in a phase that was closed; None: it was not asked."""
        closed = self._journal.closed_phase(key)
        outcomes = () if closed is None else closed.outcomes
        return next((each.outcome for each in outcomes if each.client_id == client_id), None)

    def seconds_since_closed(self, key: PhaseKey) -> float:
        """How long ago a phase was closed, by the wall clock; 0 where that is not known."""
        return self._journal.seconds_since_closed(key) or 0.0

    def _late(self, carried: CarriedReply) -> Late:
        return late_of(self._reply(carried.contribution))

    # -- the end of a phase ------------------------------------------------------------------

    def closed(self, key: PhaseKey) -> str | None:
        """Why an earlier server closed a phase; None if it did not."""
        closed = self._journal.closed_phase(key)
        return None if closed is None else closed.reason

    def close_phase(
        self, key: PhaseKey, gathered: PhaseResult, outcomes: Sequence[TaskOutcome]
    ) -> None:
        """Enter a phase's closing set, before anything is made of it."""
        if self.closed(key) is not None:
            return
        self._journal.close_phase(
            key,
            ClosedPhase(
                reason=gathered.reason,
                accepted=tuple(gathered.replies),
                outcomes=tuple(outcomes),
                seconds=gathered.seconds,
                bytes_down=gathered.bytes_down,
                bytes_up=gathered.bytes_up,
                carried=tuple(late.carried for late in gathered.late),
            ),
        )

    def awaits(self, task_id: str) -> tuple[PhaseKey, str] | None:
        """The phase and the client of a task whose phase an earlier server left open.

        None: it is no such task, or its phase was opened here. Ask this first and the task table
        then: what is not awaited any more is in the table.
        """
        return self._awaited.get(task_id)

    def opened(self, tasks: Sequence[Task]) -> None:
        """Note that the phase of these tasks is in the task table."""
        for task in tasks:
            self._awaited.pop(task.task_id, None)

    # -- rounds ------------------------------------------------------------------------------

    def resume(self) -> Checkpoint | None:
        """Where to go on: after the last round that was closed; None: from the beginning."""
        return self._journal.last_checkpoint()

    def _left_open(self) -> dict[str, tuple[PhaseKey, str]]:
        tasks: dict[str, tuple[PhaseKey, str]] = {}
        current = self._journal.rounds_done + 1
        for key in (
            PhaseKey(0, Phase.GET_PARAMETERS),
            PhaseKey(current, Phase.FIT),
            PhaseKey(current, Phase.EVALUATE),
        ):
            record = self._journal.find_phase(key)
            if record is not None and record.closed is None:
                tasks.update((ask.task_id, (key, ask.client_id)) for ask in record.plan.asks)
        return tasks

    def checkpoint(
        self,
        server_round: int,
        parameters: Parameters,
        history: History,
        state: Mapping[str, StateValue],
        summary: Mapping[str, Any],
    ) -> str:
        """Close a round: its model, the history and the strategy's state; the model's digest."""
        return self._journal.checkpoint(server_round, parameters, history.to_dict(), state, summary)

    def finish(self, ending: Mapping[str, Any]) -> None:
        """Note that the job is done."""
        self._journal.finish(ending)

    def _ask(self, planned: PlannedAsk, models: dict[str, Parameters]) -> Ask:
        task = cast(Task, decode(planned.task, our_own=True))
        ins = task.ins
        if planned.model is not None:
            digest = planned.model
            if digest not in models:
                models[digest] = self._journal.parameters(digest)
            # One object for all, as the strategy had it: the model is published once.
            ins = with_parameters(ins, models[digest])
        return Ask(planned.client_id, ins)


def _bare(reply: Reply) -> Reply:
    """The reply without its parameters' bytes."""
    return replace(reply, res=with_parameters(reply.res, Parameters([], "")))


def _event(contribution: Contribution) -> Event | None:
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
