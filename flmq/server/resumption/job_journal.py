"""A job's journal as its server uses it: phases planned and closed, rounds closed.

Everything here is durable before it returns, and raises `Fenced` once another server is in charge.
What replies leave in the journal is `ReplyJournal`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from flmq.common.parameter import parameters_of, with_parameters, without_parameters
from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.journal.errors import JournalGone, JournalNotWritable
from flmq.journal.journal import Journal
from flmq.journal.phases import PhaseReader
from flmq.journal.records import (
    Checkpoint,
    ClosedPhase,
    Part,
    PhaseKey,
    Plan,
    PlannedAsk,
)
from flmq.journal.state import StateValue
from flmq.round import STREAM, Policy, TaskOutcome, client_of
from flmq.server.criteria.failures import KEPT_ROUNDS, failed_clients
from flmq.server.history import History
from flmq.server.job.request import Ask, PhaseResult, Request
from flmq.server.replies.spool import SpoolFailed
from flmq.wire import INLINE_BYTES, Task, decode, encode, size_of

__all__ = ["JobJournal", "OpenedBefore", "Planned"]


@dataclass(frozen=True, slots=True)
class Planned:
    """Whom an earlier server of the job chose to ask, and what its strategy's state was then."""

    asks: list[Ask]
    state: Mapping[str, StateValue]
    timeout: float | None
    """Seconds that the phase may be open; None: no limit."""
    policy: Policy


@dataclass(frozen=True, slots=True)
class OpenedBefore:
    """How an earlier server opened a phase."""

    elapsed: float
    """Seconds for which it has been open under a server in charge."""
    orders: Mapping[str, tuple[str, ...]]
    """Sites of the aggregators that add up replies, and the sites whose replies each takes."""
    via: Mapping[str, str]
    """The site by whose aggregator the reply to an ask goes, by ask name."""
    epoch: int
    """The epoch of that server; 0: not known."""
    opened_ms: int = 0
    """When it did, in Unix ms by its clock."""


class JobJournal:
    """The journal of one job, with one server in charge. Thread-safe."""

    def __init__(self, journal: Journal) -> None:
        """Write to ``journal``, of which this process has taken charge."""
        self._journal = journal
        self._phases = journal.phases

    @property
    def finished(self) -> bool:
        """Whether the job was brought to its end before."""
        return self._journal.finished is not None

    @property
    def stopped_early(self) -> str:
        """Why the finished job stopped before its last round; empty if it did not."""
        return str((self._journal.finished or {}).get("stopped_early", ""))

    def cause_of(self, error: BaseException) -> BaseException:
        """Return `JournalGone` for an error that the removal of the folder caused, else itself."""
        missed = isinstance(error, JournalNotWritable | SpoolFailed)
        return JournalGone(self._journal.folder) if missed and self._journal.gone else error

    # -- phases ------------------------------------------------------------------------------

    def planned(self, key: PhaseKey) -> Planned | None:
        """Return the plan of a phase that an earlier server recorded; None if none did."""
        plan = self._phases.plan(key)
        if plan is None:
            return None
        models: dict[str, Parameters] = {}
        asks = [self._ask(planned, models) for planned in plan.asks]
        return Planned(asks, plan.state, plan.timeout, plan.policy)

    def open_phase(
        self,
        key: PhaseKey,
        tasks: Mapping[str, Task],
        request: Request,
        orders: Mapping[str, tuple[str, ...]] | None = None,
    ) -> OpenedBefore | None:
        """Record a phase's plan, unless an earlier server did. ``tasks`` are by ask name.

        ``orders`` has the sites of the aggregators that are to add up replies, and the sites whose
        replies each takes.

        Returns:
            None if the phase is new; else what is recorded of its opening.
        """
        elapsed = self._phases.elapsed(key)
        if elapsed is not None:
            return _opened_before(self._phases, key, elapsed)
        asks = _planned_asks(self._journal, tasks, request.asks)
        plan = Plan(asks, request.timeout, request.policy, request.state or {}, orders or {})
        self._phases.open(key, plan)
        return None

    def tick(self, key: PhaseKey, elapsed: float) -> None:
        """Record that a phase has been open for ``elapsed`` seconds."""
        self._phases.tick(key, elapsed)

    def tick_all(self, elapsed: Mapping[PhaseKey, float]) -> None:
        """Record for how many seconds each of these phases has been open, in one transaction."""
        self._phases.tick_all(elapsed)

    def left_open(self) -> dict[str, tuple[PhaseKey, str]]:
        """Return phase and ask name, by task id, of the phases that an earlier server left open."""
        return self._phases.left_open()

    def unsettled(self, phase: Phase) -> list[PhaseKey]:
        """Return the asks of streams that no checkpoint covers: those taken first, in order."""
        return self._phases.unsettled(phase)

    def closed_calls(self, server_round: int, phase: Phase) -> list[PhaseKey]:
        """Return the closed phases of this kind in a round, in the order of opening."""
        return self._phases.closed_calls(server_round, phase)

    def orders(self, key: PhaseKey) -> Mapping[str, tuple[str, ...]]:
        """Return the sites of the aggregators that add up replies to a phase, as it was planned,
        and the sites whose replies each takes.
        """
        return self._phases.orders(key)

    def closed(self, key: PhaseKey) -> str | None:
        """Return why an earlier server closed a phase; None if none did."""
        closed = self._phases.closed(key)
        return None if closed is None else closed.reason

    def close_phase(
        self,
        key: PhaseKey,
        result: PhaseResult,
        outcomes: Sequence[TaskOutcome],
        parts: Sequence[Part] = (),
        about: Mapping[str, Any] | None = None,
    ) -> None:
        """Record a phase's closing set, before it is aggregated.

        ``parts`` and ``about`` are for people: what each client did, and what sums it up.
        """
        if self.closed(key) is not None:
            return
        self._phases.close(
            key,
            ClosedPhase(
                reason=result.reason,
                accepted=tuple(result.replies),
                outcomes=tuple(outcomes),
                seconds=result.seconds,
                bytes_down=result.bytes_down,
                bytes_up=result.bytes_up,
                carried=tuple(late.ref for late in result.late),
            ),
            parts,
            about,
        )

    # -- rounds ------------------------------------------------------------------------------

    def resume(self) -> Checkpoint | None:
        """Return the last checkpoint, to go on from; None if the job begins."""
        return self._journal.last_checkpoint()

    def failures(self) -> dict[int, set[str]]:
        """Return which clients failed in each of the last rounds that have a checkpoint."""
        done = [row for row in self._journal.rounds() if row.done][-KEPT_ROUNDS:]
        return {
            row.server_round: set().union(
                *(
                    failed_clients(phase.outcomes, phase.reason)
                    for phase in row.phases
                    if phase.phase in (Phase.FIT, Phase.EVALUATE) and phase.call < STREAM
                )
            )
            for row in done
        }

    def parameters(self, digest: str) -> Parameters:
        """Return parameters that the journal has, mapped from disk."""
        return self._journal.parameters(digest)

    def checkpoint(
        self,
        server_round: int,
        parameters: Parameters,
        history: History,
        state: Mapping[str, StateValue],
        summary: Mapping[str, Any],
    ) -> str:
        """Record a round's model, history and strategy state; return the model's digest."""
        return self._journal.checkpoint(server_round, parameters, history.to_dict(), state, summary)

    def finish(self, ending: Mapping[str, Any]) -> None:
        """Record that the job is done."""
        self._journal.finish(ending)

    def _ask(self, planned: PlannedAsk, models: dict[str, Parameters]) -> Ask:
        task = _task(planned)
        ins = task.ins
        if planned.model is not None:
            digest = planned.model
            if digest not in models:
                models[digest] = _in_memory_if_small(self._journal.parameters(digest))
            # One object for all, as the strategy had it: the model is published once.
            ins = with_parameters(ins, models[digest])
        return Ask(client_of(planned.client_id), ins)


def _planned_asks(
    journal: Journal, tasks: Mapping[str, Task], asks: Sequence[Ask]
) -> tuple[PlannedAsk, ...]:
    """Return what to record of each task, having put the parameters that several share.

    Those of the tasks that name a model are put too.
    """
    times = Counter(id(parameters_of(ask.ins)) for ask in asks)
    digests: dict[int, str] = {}
    planned = []
    for (name, task), ask in zip(tasks.items(), asks, strict=True):
        parameters = parameters_of(ask.ins)
        is_own = task.model is None and times[id(parameters)] == 1
        if parameters is None or not parameters.tensors or is_own:
            planned.append(PlannedAsk(name, task.task_id, encode(task)))
            continue
        digest = digests.get(id(parameters))
        if digest is None:
            digest = journal.put_parameters(parameters, task.model).digest
            digests[id(parameters)] = digest
        bare = replace(task, ins=without_parameters(task.ins))
        planned.append(PlannedAsk(name, task.task_id, encode(bare), digest))
    return tuple(planned)


def _opened_before(phases: PhaseReader, key: PhaseKey, elapsed: float) -> OpenedBefore:
    orders = phases.orders(key)
    # Who planned it matters, and who goes by which site, only where there are orders.
    plan = phases.plan(key) if orders else None
    tasks = {} if plan is None else {each.client_id: _task(each) for each in plan.asks}
    epoch = max((task.epoch for task in tasks.values()), default=0)
    via = {ask: task.via for ask, task in tasks.items() if task.via}
    return OpenedBefore(elapsed, orders, via, epoch, phases.opened_unix_ms(key))


def _task(planned: PlannedAsk) -> Task:
    return cast(Task, decode(planned.task, our_own=True))


def _in_memory_if_small(parameters: Parameters) -> Parameters:
    """Return what fits a task as it was before: not in a file, which may be deleted meanwhile."""
    if size_of(parameters) > INLINE_BYTES:
        return parameters
    tensors = [bytes(tensor) for tensor in parameters.tensors]
    return Parameters(tensors, parameters.tensor_type, parameters.names)
