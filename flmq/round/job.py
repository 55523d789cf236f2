"""Decide the fate of every reply to a job's asks. No other module decides it.

Theory of operation
-------------------
*An ask* is one question to one client, identified by its task id. Asks are opened together as a
phase (a direct call of a strategy to a client is a phase of one ask). Each phase has a `Round`,
which decides when it closes. This state machine holds the open and closed phases of a job and
decides what each reply means. The code that performs its actions does I/O and makes no decisions.

*Rule 1: stage gives fate, fate gives steps.* What a reply is depends only on the stage of its ask
(`STAGES`). What is done about it depends only on its fate, and always in one order (`STEPS`):
journal, count, receipt, ack. So nothing is acked before it is durable, and no client is told an
outcome that a restarted server would not know.

*Rule 2: a reply's fate is looked up twice.* Checking a reply can take long (it may have gigabytes)
and is done outside this machine: `fate_of` says which check is needed, and `handle` takes its
result. If the fate has changed in between, for example because the deadline passed, `handle`
returns only `JudgeAgain`.

*Rule 3: a reply is late only once the closing set is durable.* Until then, another server could
take over, close the phase with a different set, and count the reply. So the reply waits (UNDECIDED)
for `PhaseClosedDurably`.

*A late reply that is wanted* counts in the open phase that takes late replies; if there is none, in
the next one to open. Which phase that is depends on timing. The closing set of that phase records
it, so a resumed server counts the reply in the same phase.

*Phases of an earlier server* are either still open (their asks are AWAITED until this server opens
the phase again) or closed, and then known from the record (`Recorded`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flmq.common.phase import Phase
from flmq.round.actions import Action, Close, LateReplyRef, Outcome, Settle
from flmq.round.events import ReplyAccepted
from flmq.round.fates import STAGES, STEPS, WANTED, AskStage, Fate, Step, SumFate
from flmq.round.job_actions import (
    LONG_OVER,
    Ack,
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
from flmq.round.job_events import (
    Origin,
    PhaseClosedDurably,
    PhaseEvent,
    PhaseOpened,
    Recorded,
    RepliedLateBefore,
    ReplyCame,
    SumCame,
    named_claim,
)
from flmq.round.keys import PhaseKey
from flmq.round.late import LateReplies
from flmq.round.memory import PhaseMemory
from flmq.round.state import Round, RoundState, TaskState
from flmq.round.sums import (
    PartialSums,
    again_actions,
    late_actions,
    not_open,
    other_actions,
    settled_actions,
)

__all__ = ["JobEvent", "JobState"]

JobEvent = PhaseOpened | ReplyCame | SumCame | RepliedLateBefore | PhaseEvent | PhaseClosedDurably


@dataclass(slots=True)
class _Phase:
    """A phase in memory."""

    opened: PhaseOpened
    round: Round
    closed_at: float | None = None
    durable: bool = False
    undecided: list[int] = field(default_factory=list)
    """Tokens of replies that wait until the closing set is durable."""

    def late_by(self, at: float) -> float:
        """Return for how many seconds it had been closed by then; 0 if that is unknown."""
        return 0.0 if self.closed_at is None else max(0.0, at - self.closed_at)


class JobState:
    """The asks of one job and their phases. Not thread-safe."""

    def __init__(
        self,
        *,
        has_record: bool = False,
        late_until: int = 0,
        awaited: Mapping[str, tuple[PhaseKey, str]] | None = None,
        waiting: Iterable[LateReplyRef] = (),
        last: int = 0,
    ) -> None:
        """Start, or continue from the record of earlier servers.

        ``late_until`` is the last round in which late replies count; 0 if they never do.
        ``awaited`` has the phase and the ask name of each task in a phase that was left open.
        ``waiting`` are the late replies that no phase has counted yet, and ``last`` is the last
        round that counted some, or could have.
        """
        self._has_record = has_record
        self._late = LateReplies(late_until, waiting, last)
        self._awaited = dict(awaited or {})
        self._phases: dict[PhaseKey, _Phase] = {}
        self._tasks: dict[str, tuple[_Phase, str]] = {}
        self.memory = PhaseMemory()
        """Which phases are in memory, and which were forgotten."""
        self._early: dict[str, int] = {}
        """Tokens of compressed replies that wait for their phase to open, by task id."""
        self._sums = PartialSums()
        self._answered_late: set[str] = set()
        """Ids of tasks whose phase is not in memory and whose late reply reached this server."""

    # -- queries -----------------------------------------------------------------------------

    def phase_of(self, task_id: str) -> tuple[PhaseKey, str] | None:
        """Return the phase and the ask name of a task; None if it is not in memory."""
        found = self._tasks.get(task_id)
        if found is not None:
            return found[0].opened.key, found[1]
        return self._awaited.get(task_id)

    def round_of(self, key: PhaseKey) -> Round:
        """Return the round of a phase in memory. Read it only; `handle` changes it."""
        return self._phases[key].round

    def remembers(self, key: PhaseKey) -> bool:
        """Return whether a phase is in memory."""
        return key in self._phases

    def unanswered_before(self, client_ids: Iterable[str]) -> dict[str, PhaseKey]:
        """Return those of these clients that left their last ask unanswered, with its phase."""
        found = dict[str, PhaseKey]()
        for client_id in client_ids:
            last = self.memory.last_ask(client_id)
            phase = None if last is None else self._phases.get(last[0])
            if last and phase and phase.round.tasks[last[1]] is TaskState.SILENT:
                found[client_id] = phase.opened.key
        return found

    def fate_of(self, task_id: str, recorded: Recorded | None = None) -> Fate:
        """Return what a reply to this task would be now; ``recorded`` is as in `ReplyCame`."""
        fate = STAGES[self.stage_of(task_id, recorded)]
        late_wanted = fate is Fate.LATE and self._would_count(task_id, recorded)
        return Fate.LATE_WANTED if late_wanted else fate

    def stage_of(self, task_id: str, recorded: Recorded | None = None) -> AskStage:
        """Return the stage of the ask of this task."""
        found = self._tasks.get(task_id)
        if found is None:
            if task_id in self._awaited:
                return AskStage.AWAITED
            if recorded is None:
                return AskStage.FORGOTTEN
            answered = recorded.answered or task_id in self._answered_late
            return AskStage.ANSWERED if answered else AskStage.UNANSWERED
        phase, ask = found
        if phase.round.expects(ask):
            return AskStage.OPEN
        if not phase.round.is_unanswered(ask):
            return AskStage.ANSWERED
        # Without a record, only a reply that may count in a later round has to wait.
        sure = phase.durable or not (phase.opened.journaled or phase.opened.hands_over)
        return AskStage.UNANSWERED if sure else AskStage.CLOSING

    def may_want(self, task_id: str) -> bool:
        """Return whether a reply to this task, once complete, may count now or in a later round."""
        if self.phase_of(task_id) is not None:
            return self.fate_of(task_id) in WANTED
        return self._has_record and self._late.are_wanted

    def _would_count(self, task_id: str, recorded: Recorded | None) -> bool:
        found = self._tasks.get(task_id)
        if found is not None:
            return found[0].opened.hands_over and self._late.has_round()
        return recorded is not None and recorded.key.phase is Phase.FIT and self._late.has_round()

    def fate_of_sum(self, order_id: str, key: PhaseKey, tasks: Iterable[str]) -> SumFate:
        """Return what a partial sum over these tasks of a phase would be now."""
        if self._sums.is_taken(order_id, key):
            return SumFate.DUPLICATE
        phase = self._phases.get(key)
        if phase is None:
            is_left = any(of == key for of, _ in self._awaited.values())
            return SumFate.EARLY if is_left else SumFate.UNKNOWN
        if phase.round.state is RoundState.OPEN:
            return SumFate.REFUSED if not_open(phase, tasks) else SumFate.SETTLES
        if any(self.stage_of(task) is AskStage.CLOSING for task in tasks):
            return SumFate.UNDECIDED
        return SumFate.LATE

    # -- events ------------------------------------------------------------------------------

    def handle(self, event: JobEvent) -> list[JobAction]:
        """Process one event; return the actions to perform, in order."""
        match event:
            case ReplyCame():
                return self._reply(event)
            case SumCame():
                return self._sum(event)
            case PhaseOpened():
                return self._open(event)
            case PhaseEvent(key, what, at):
                # The broker may report on a task after its phase has been forgotten.
                known = self._phases.get(key)
                return [] if known is None else self._told(known, known.round.handle(what), at)
            case RepliedLateBefore(key, asks):
                for ask in sorted(asks):
                    self._phases[key].round.handle(ReplyAccepted(ask))
                return []
            case PhaseClosedDurably(key):
                phase = self._phases[key]
                if not phase.durable:
                    self.memory.closed(key)
                phase.durable = True
                waiting, phase.undecided = phase.undecided, []
                self._forget_oldest()
                return [JudgeAgain(token) for token in waiting]

    def _open(self, event: PhaseOpened) -> list[JobAction]:
        key = event.key
        if key in self._phases:
            raise ValueError(f"{event.label}: {key} was opened before")
        phase = _Phase(event, Round(tuple(event.asks.values()), event.policy, label=event.label))
        self._phases[key] = phase
        self._tasks.update((task, (phase, ask)) for task, ask in event.asks.items())
        self.memory.asked(key, event.asks.values())
        for task in event.asks:
            self._awaited.pop(task, None)
        actions = self._late.give_to(phase)
        actions += self._told(phase, phase.round.open(), None)
        early = [self._early.pop(task) for task in event.asks if task in self._early]
        early += self._sums.opened(key)
        return [*actions, *(JudgeAgain(token) for token in early)]

    def _reply(self, event: ReplyCame) -> list[JobAction]:
        fate = self.fate_of(event.task_id, event.recorded)
        if fate is not event.fate:
            return [JudgeAgain(event.token)]
        match fate:
            case Fate.SETTLES:
                return self._settle(event)
            case Fate.EARLY:
                return self._keep_early(event)
            case Fate.UNDECIDED:
                self._tasks[event.task_id][0].undecided.append(event.token)
                return []
            case Fate.UNKNOWN:
                return self._steps(event, STEPS[fate], None, "", LONG_OVER)
            case _:
                return self._late_or_duplicate(event, fate)

    def _settle(self, event: ReplyCame) -> list[JobAction]:
        phase, ask = self._tasks[event.task_id]
        settled, *rest = phase.round.handle(named_claim(event.claim, ask))
        assert isinstance(settled, Settle)
        verdict = Verdict.of(settled.outcome)
        steps = STEPS[Fate.SETTLES] if event.origin is not Origin.RECORD else (Step.COUNT,)
        actions = self._steps(event, steps, phase, ask, verdict)
        return [*actions, *self._told(phase, rest, event.at)]

    def _sum(self, event: SumCame) -> list[JobAction]:
        tasks = [each.task_id for each in event.entries]
        fate = self.fate_of_sum(event.order_id, event.key, tasks)
        if fate is not event.fate:
            return [JudgeAgain(event.token)]
        phase = self._phases.get(event.key)
        journaled = self._has_record and phase is not None and phase.opened.journaled
        match fate:
            case SumFate.SETTLES if phase is not None and not event.problem:
                self._sums.take(event)
                actions, told = settled_actions(event, phase, is_journaled=journaled)
                return [*actions, *self._told(phase, told, event.at)]
            case SumFate.LATE if phase is not None and not event.problem:
                return late_actions(event, phase, is_journaled=journaled)
            case SumFate.DUPLICATE if phase is not None:
                return again_actions(event, phase)
            case SumFate.EARLY:
                self._sums.wait(event)
                return []
            case SumFate.UNDECIDED if phase is not None:
                phase.undecided.append(event.token)
                return []
            case _:
                reason = event.problem
                if fate is SumFate.REFUSED and phase is not None and not reason:
                    reason = not_open(phase, tasks)
                return other_actions(event, fate, reason)

    def _keep_early(self, event: ReplyCame) -> list[JobAction]:
        key, ask = self._awaited[event.task_id]
        if event.packed:
            before = self._early.get(event.task_id)
            self._early[event.task_id] = event.token
            return [*([] if before is None else [Ack(before)]), Keep(event.token)]
        verdict = Verdict(Outcome.ACCEPTED)
        return [Enter(event.token, key, ask, Entry.UNJUDGED, verdict), Ack(event.token)]

    def _late_or_duplicate(self, event: ReplyCame, fate: Fate) -> list[JobAction]:
        found, recorded = self._tasks.get(event.task_id), event.recorded
        outcome = Outcome.DUPLICATE if fate is Fate.DUPLICATE else Outcome.LATE
        if found is not None:
            phase, ask = found
            key, late_by = phase.opened.key, phase.late_by(event.at)
            phase.round.handle(named_claim(event.claim, ask))
        else:
            assert recorded is not None
            phase, ask, key, late_by = None, recorded.ask, recorded.key, recorded.seconds
            self._answered_late.add(event.task_id)
        note = "" if outcome is Outcome.DUPLICATE else event.note
        into, carry = None, list[JobAction]()
        if fate is Fate.LATE_WANTED and not note:
            ref = LateReplyRef(event.client_id, key.server_round, event.task_id)
            into, carry = self._late.offer(ref)
        verdict = Verdict(outcome, "", late_by, note, into)
        actions = self._steps(event, STEPS[fate], phase, ask, verdict, key=key, late=True)
        journaled = isinstance(actions[0], Enter)
        return [*actions[:journaled], *carry, *actions[journaled:]]

    def _steps(
        self,
        event: ReplyCame,
        steps: Iterable[Step],
        phase: _Phase | None,
        ask: str,
        verdict: Verdict,
        *,
        key: PhaseKey | None = None,
        late: bool = False,
    ) -> list[JobAction]:
        """Return the actions that handle a reply, in order."""
        key = key if phase is None else phase.opened.key
        is_journaled = self._has_record and (phase is None or phase.opened.journaled)
        actions: list[JobAction] = []
        for step in steps:
            match step:
                case Step.JOURNAL if key is not None and is_journaled:
                    entry = Entry.LATE if late else Entry.REPLY
                    if event.origin is Origin.UNJUDGED and not late:
                        entry = Entry.JUDGED
                    actions.append(Enter(event.token, key, ask, entry, verdict))
                case Step.COUNT if key is not None:
                    actions.append(Count(key, ask, verdict, event.token))
                # With a record the phase of an unknown task may yet open: its client keeps it.
                case Step.RECEIPT if key is not None or not self._has_record:
                    actions.append(SendReceipt(event.token, verdict))
                case Step.ACK:
                    actions.append(Ack(event.token))
        return actions

    def _told(self, phase: _Phase, actions: Iterable[Action], at: float | None) -> list[JobAction]:
        """Translate the round's actions on unanswered asks, and its closing, into the job's
        actions.
        """
        key, said = phase.opened.key, list[JobAction]()
        for action in actions:
            match action:
                case Settle(outcome):
                    said.append(Count(key, outcome.client_id, Verdict.of(outcome)))
                case Close():
                    phase.closed_at = at
                    said.append(ClosePhase(key, action))
        return said

    def _forget_oldest(self) -> None:
        """Forget the oldest closed phases while there are too many of them, or of their asks."""
        # Without a record, what is forgotten early could not count late any more.
        needed = self._late.are_wanted and not self._has_record
        while (key := self.memory.next_to_forget(0 if needed else len(self._tasks))) is not None:
            for task in self._phases.pop(key).opened.asks:
                del self._tasks[task]
            self._sums.forget(key)
