"""A job's journal as its server uses it: phases planned, replies taken in, rounds closed.

Everything here is durable before it returns, and raises `Fenced` once another server is in charge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from flmq.common.phase import Phase
from flmq.common.typing import (
    EvaluateIns,
    FitIns,
    FitRes,
    GetParametersRes,
    Parameters,
)
from flmq.journal.journal import Journal
from flmq.journal.records import (
    Checkpoint,
    ClosedPhase,
    Contribution,
    PhaseKey,
    Plan,
    PlannedAsk,
)
from flmq.journal.state import StateValue
from flmq.round import Event, Outcome, ReplyAccepted, ReplyFailed, ReplyRejected, Word
from flmq.server.gather import Ask, Gathered, Request
from flmq.server.history import History
from flmq.server.spool import SpooledParameters
from flmq.wire import Reply, Task, decode, encode

__all__ = ["Ledger", "Planned"]


@dataclass(frozen=True, slots=True)
class Planned:
    """Whom an earlier server of the job chose to ask, and what its strategy's state was then."""

    asks: list[Ask]
    state: Mapping[str, StateValue]


class Ledger:
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

    # -- phases ------------------------------------------------------------------------------

    def planned(self, key: PhaseKey) -> Planned | None:
        """The plan of a phase that an earlier server made; None if there is none."""
        record = self._journal.find_phase(key)
        if record is None:
            return None
        models: dict[str, Parameters] = {}
        asks = [self._ask(planned, models) for planned in record.plan.asks]
        return Planned(asks, record.plan.state)

    def open_phase(self, key: PhaseKey, tasks: Sequence[Task], request: Request) -> float:
        """Enter a phase's plan; the seconds for which it has been open under a server in charge."""
        record = self._journal.find_phase(key)
        self._awaited.difference_update(task.task_id for task in tasks)
        if record is not None:
            return record.elapsed
        models = {
            task.model: cast("FitIns | EvaluateIns", ask.ins).parameters
            for task, ask in zip(tasks, request.asks, strict=True)
            if task.model is not None
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
        return 0.0

    def tick(self, key: PhaseKey, elapsed: float) -> None:
        """Note for how many seconds a phase has been open."""
        self._journal.tick(key, elapsed)

    def contribute(self, contributions: Sequence[tuple[PhaseKey, Event, Reply, int]]) -> None:
        """Take in replies that settle their clients' tasks: all of them, in one commit."""
        self._journal.contribute_many(
            [
                (key, self._contribution(event, reply, size))
                for key, event, reply, size in contributions
            ]
        )

    def _contribution(self, event: Event, reply: Reply, size: int) -> Contribution:
        """What to enter for a reply; its parameters on disk are adopted on the way."""
        match event:
            case ReplyAccepted():
                kind, reason = Word.ACCEPTED, ""
            case ReplyFailed(_, reason):
                kind = Word.FAILED
            case ReplyRejected(_, reason):
                # Nobody looks at what it brought.
                kind, reply = Word.REJECTED, _bare(reply)
            case _:
                raise TypeError(f"{type(event).__name__} is no reply")
        ref = None
        parameters = getattr(reply.res, "parameters", None)
        if isinstance(parameters, SpooledParameters):
            ref = parameters.ref
            parameters.keep(self._journal.adopt_reply(reply.task_id, parameters.path, ref))
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

    def replies(self, key: PhaseKey) -> Iterator[tuple[Event, Reply, int]]:
        """What an earlier server had taken in, in that order: how, what, and its bytes."""
        record = self._journal.find_phase(key)
        if record is None:
            return
        settled = None
        if record.closed is not None:
            # What came when the phase had closed is not of its set, though it was written down.
            settled = {(outcome.client_id, outcome.word) for outcome in record.closed.outcomes}
        for each in record.contributions:
            if settled is not None and (each.client_id, each.kind) not in settled:
                continue
            reply = cast(Reply, decode(each.reply))
            if each.blob is not None:
                parameters = self._journal.reply_parameters(each)
                assert parameters is not None
                res = cast("FitRes | GetParametersRes", reply.res)
                reply = replace(reply, res=replace(res, parameters=parameters), blob=None)
            yield _event(each), reply, each.size

    def closed(self, key: PhaseKey) -> str | None:
        """Why an earlier server closed a phase; None if it did not."""
        closed = self._journal.closed_phase(key)
        return None if closed is None else closed.reason

    def close_phase(self, key: PhaseKey, gathered: Gathered, outcomes: Sequence[Outcome]) -> None:
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
            ),
        )

    def awaits(self, task_id: str) -> bool:
        """Whether a task is of a phase that an earlier server left open and nobody opened since."""
        return task_id in self._awaited

    # -- rounds ------------------------------------------------------------------------------

    def resume(self) -> Checkpoint | None:
        """Where to go on: after the last round that was closed; None: from the beginning."""
        return self._journal.last_checkpoint()

    def _left_open(self) -> set[str]:
        tasks: set[str] = set()
        for phase in (Phase.FIT, Phase.EVALUATE):
            key = PhaseKey(self._journal.rounds_done + 1, phase)
            record = self._journal.find_phase(key)
            if record is not None and record.closed is None:
                tasks.update(ask.task_id for ask in record.plan.asks)
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
        task = cast(Task, decode(planned.task))
        ins = task.ins
        if planned.model is not None and isinstance(ins, FitIns | EvaluateIns):
            digest = planned.model
            if digest not in models:
                models[digest] = self._journal.parameters(digest)
            # One object for all, as the strategy had it: the model is published once.
            ins = replace(ins, parameters=models[digest])
        return Ask(planned.client_id, ins)


def _bare(reply: Reply) -> Reply:
    """The reply without its parameters' bytes."""
    if not isinstance(reply.res, FitRes | GetParametersRes):
        return reply
    return replace(reply, res=replace(reply.res, parameters=Parameters([], "")))


def _event(contribution: Contribution) -> Event:
    client_id, reason = contribution.client_id, contribution.reason
    match contribution.kind:
        case Word.ACCEPTED:
            return ReplyAccepted(client_id)
        case Word.FAILED:
            return ReplyFailed(client_id, reason)
        case _:
            return ReplyRejected(client_id, reason)
