"""The job's machine: every reply one fate, every ask one outcome, journal before ack."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flmq.common.phase import Phase
from flmq.round import (
    DeadlinePassed,
    JobEvent,
    JobState,
    LateReplyRef,
    Outcome,
    PhaseKey,
    Policy,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    Stopped,
    TaskUnroutable,
)
from flmq.round.fates import STAGES, STEPS, AskStage, Fate, Step, SumFate
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
    Verdict,
)
from flmq.round.job_events import (
    Claim,
    Origin,
    PhaseClosedDurably,
    PhaseEvent,
    PhaseOpened,
    Recorded,
    RepliedLateBefore,
    ReplyCame,
    SumCame,
    SumEntry,
)

FIT = PhaseKey(1, Phase.FIT)


def opened(key: PhaseKey = FIT, *asks: str, journaled: bool = True, **more: object) -> PhaseOpened:
    tasks = {f"{key.server_round}/{ask}": ask for ask in asks}
    return PhaseOpened(key, tasks, Policy(min_results=0), "test", journaled, **more)  # type: ignore[arg-type]


def came(
    state: JobState,
    token: int,
    task: str = "1/a",
    *,
    claim: Claim | None = None,
    recorded: Recorded | None = None,
    at: float = 0.0,
    **more: object,
) -> ReplyCame:
    client = task.partition("/")[2].partition("#")[0]
    fate = state.fate_of(task, recorded)
    claim = claim or ReplyAccepted(client)
    return ReplyCame(token, task, client, fate, claim, at, recorded=recorded, **more)  # type: ignore[arg-type]


def sum_came(
    state: JobState,
    token: int,
    *asks: str,
    key: PhaseKey = FIT,
    order: str = "",
    claims: dict[str, Claim] | None = None,
    **more: object,
) -> SumCame:
    """A partial sum; its answers have the tokens after its own."""
    tasks = [f"{key.server_round}/{ask}" for ask in asks]
    said = claims or {}
    entries = tuple(
        SumEntry(token + place, task, said.get(ask, ReplyAccepted(ask)))
        for place, (task, ask) in enumerate(zip(tasks, asks, strict=True), 1)
    )
    order = order or f"{key.server_round}/!s"
    fate = state.fate_of_sum(order, key, tasks)
    return SumCame(token, order, key, entries, fate, more.pop("at", 0.0), **more)  # type: ignore[arg-type]


def kinds(actions: list[JobAction]) -> list[str]:
    return [type(action).__name__ for action in actions]


# -- the table


def test_every_stage_has_a_fate_and_every_fate_its_steps() -> None:
    assert set(STAGES) == set(AskStage)
    assert set(STEPS) == set(Fate)
    assert set(STAGES.values()) | {Fate.LATE_WANTED} == set(Fate)


@pytest.mark.parametrize("fate", list(Fate))
def test_steps_are_taken_in_one_order(fate: Fate) -> None:
    order = list(Step)
    steps = STEPS[fate]
    assert list(steps) == sorted(steps, key=order.index)
    if Step.JOURNAL in steps:
        assert steps[0] is Step.JOURNAL
    if steps:
        assert steps[-1] is Step.ACK


# -- one fate after the other


def test_a_reply_that_settles_is_journalled_counted_answered_and_acked() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b"))
    actions = state.handle(came(state, 7))
    verdict = Verdict(Outcome.ACCEPTED)
    assert actions == [
        Enter(7, FIT, "a", Entry.REPLY, verdict),
        Count(FIT, "a", verdict, 7),
        SendReceipt(7, verdict),
        Ack(7),
    ]


def test_the_last_one_closes_its_phase_when_all_else_is_done() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a"))
    assert kinds(state.handle(came(state, 1))) == [
        "Enter", "Count", "SendReceipt", "Ack", "ClosePhase"
    ]  # fmt: skip


def test_without_a_record_nothing_is_journalled() -> None:
    state = JobState()
    state.handle(opened(FIT, "a", "b", journaled=False))
    assert kinds(state.handle(came(state, 1))) == ["Count", "SendReceipt", "Ack"]


def test_a_second_reply_is_a_duplicate() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b"))
    state.handle(came(state, 1))
    enter, count, receipt, ack = state.handle(came(state, 2))
    assert isinstance(enter, Enter)
    assert (enter.entry, enter.verdict.outcome) == (Entry.LATE, Outcome.DUPLICATE)
    assert isinstance(count, Count)
    assert isinstance(receipt, SendReceipt)
    assert ack == Ack(2)


def test_a_client_that_is_asked_twice_answers_twice() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "a#2"))
    assert "ClosePhase" not in kinds(state.handle(came(state, 1, "1/a")))
    assert "ClosePhase" in kinds(state.handle(came(state, 2, "1/a#2")))
    assert state.round_of(FIT).accepted() == ("a", "a#2")


def test_what_comes_before_the_closing_set_is_durable_waits_for_it() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a"))
    closing = state.handle(PhaseEvent(FIT, DeadlinePassed(), 5.0))
    assert kinds(closing) == ["Count", "ClosePhase"]
    assert state.handle(came(state, 1)) == []
    assert state.handle(came(state, 2)) == []
    assert state.handle(PhaseClosedDurably(FIT)) == [JudgeAgain(1), JudgeAgain(2)]
    enter, count, receipt, ack = state.handle(came(state, 1, at=7.5))
    assert isinstance(enter, Enter)
    assert enter.verdict == Verdict(Outcome.LATE, late_by=2.5)
    assert kinds([count, receipt, ack]) == ["Count", "SendReceipt", "Ack"]
    assert state.fate_of("1/a") is Fate.DUPLICATE


def test_a_fate_that_changed_while_the_reply_was_checked_is_judged_again() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a"))
    event = came(state, 1)
    state.handle(PhaseEvent(FIT, DeadlinePassed(), 5.0))
    assert state.handle(event) == [JudgeAgain(1)]


def late_reply(state: JobState, **more: object) -> list[JobAction]:
    state.handle(opened(FIT, "a", hands_over=True))
    state.handle(PhaseEvent(FIT, DeadlinePassed(), 0.0))
    state.handle(PhaseClosedDurably(FIT))
    return state.handle(came(state, 1, **more))  # type: ignore[arg-type]


def test_a_late_reply_counts_in_the_next_round() -> None:
    state = JobState(has_record=True, late_until=3)
    actions = late_reply(state)
    assert kinds(actions) == ["Enter", "Count", "SendReceipt", "Ack"]
    assert isinstance(actions[0], Enter)
    assert actions[0].verdict.into == 2
    second = PhaseKey(2, Phase.FIT)
    ref = LateReplyRef("a", 1, "1/a")
    assert state.handle(opened(second, "b", hands_over=True)) == [Carry(second, ref)]
    *_, close = state.handle(came(state, 2, "2/b"))
    assert isinstance(close, ClosePhase)
    assert close.close.carried == (ref,)
    assert state.handle(opened(PhaseKey(3, Phase.FIT), "b", hands_over=True)) == []


def test_or_in_the_one_that_is_open_then() -> None:
    state = JobState(has_record=True, late_until=3)
    second = PhaseKey(2, Phase.FIT)
    state.handle(opened(FIT, "a", hands_over=True))
    state.handle(PhaseEvent(FIT, DeadlinePassed(), 0.0))
    state.handle(PhaseClosedDurably(FIT))
    state.handle(opened(second, "b", hands_over=True))
    assert kinds(state.handle(came(state, 1))) == [
        "Enter", "Carry", "Count", "SendReceipt", "Ack"
    ]  # fmt: skip


def test_one_that_does_not_fit_is_dropped_and_so_is_one_after_the_last_round() -> None:
    for state, more in (
        (JobState(has_record=True, late_until=3), {"note": "rejected: no"}),
        (JobState(has_record=True, late_until=1), {}),
        (JobState(has_record=True), {}),
    ):
        actions = late_reply(state, **more)
        assert isinstance(actions[0], Enter)
        assert actions[0].verdict.into is None
        assert actions[0].verdict.note == more.get("note", "")


def test_a_reply_to_a_phase_that_an_earlier_server_left_open_is_kept_unjudged() -> None:
    state = JobState(has_record=True, awaited={"1/a": (FIT, "a"), "1/b": (FIT, "b")})
    actions = state.handle(came(state, 1))
    assert actions == [
        Enter(1, FIT, "a", Entry.UNJUDGED, Verdict(Outcome.ACCEPTED)),
        Ack(1),
    ]
    # One that is packed cannot be read yet; of two the later is kept.
    assert state.handle(came(state, 2, "1/b", packed=True)) == [Keep(2)]
    assert state.handle(came(state, 3, "1/b", packed=True)) == [Ack(2), Keep(3)]
    assert state.handle(opened(FIT, "a", "b")) == [JudgeAgain(3)]
    judged = state.handle(came(state, 4, origin=Origin.UNJUDGED))
    assert kinds(judged) == ["Enter", "Count", "SendReceipt", "Ack"]
    assert isinstance(judged[0], Enter)
    assert judged[0].entry is Entry.JUDGED


def test_what_is_recorded_is_counted_and_no_more() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b"))
    assert kinds(state.handle(came(state, 1, origin=Origin.RECORD))) == ["Count"]


def test_of_a_phase_that_is_not_in_memory_the_record_tells() -> None:
    state = JobState(has_record=True, late_until=9, last=5)
    recorded = Recorded(FIT, "a", answered=False, seconds=60.0)
    actions = state.handle(came(state, 1, recorded=recorded))
    assert isinstance(actions[0], Enter)
    assert actions[0].verdict == Verdict(Outcome.LATE, late_by=60.0, into=6)
    again = state.handle(came(state, 2, recorded=recorded))
    assert isinstance(again[0], Enter)
    assert again[0].verdict.outcome is Outcome.DUPLICATE
    answered = replace(recorded, answered=True)
    assert state.fate_of("1/z", answered) is Fate.DUPLICATE


def test_of_what_nobody_knows_only_a_job_without_record_says_that_it_is_over() -> None:
    with_record, without = JobState(has_record=True), JobState()
    assert kinds(with_record.handle(came(with_record, 1))) == ["Ack"]
    assert kinds(without.handle(came(without, 1))) == ["SendReceipt", "Ack"]


def test_who_answered_late_before_is_a_duplicate_when_it_answers_again() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", carried=()))
    state.handle(PhaseEvent(FIT, Stopped("deadline"), 0.0))
    state.handle(RepliedLateBefore(FIT, frozenset({"a"})))
    assert state.fate_of("1/a") is Fate.DUPLICATE


def test_a_phase_is_not_opened_twice() -> None:
    state = JobState()
    state.handle(opened(FIT, "a"))
    with pytest.raises(ValueError, match="opened before"):
        state.handle(opened(FIT, "a"))


def test_old_phases_are_forgotten_when_their_closing_is_durable() -> None:
    state = JobState()
    keys = [PhaseKey(number, Phase.FIT) for number in range(1, 101)]
    for key in keys:
        state.handle(opened(key, "a"))
        state.handle(PhaseEvent(key, DeadlinePassed(), 0.0))
        if key != keys[0]:
            state.handle(PhaseClosedDurably(key))
    assert state.remembers(keys[0])
    assert not state.remembers(keys[1])
    assert state.fate_of("2/a") is Fate.UNKNOWN


def test_without_a_record_those_of_many_asks_are_kept_where_late_replies_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of one that is forgotten nobody knows any more what it asked."""
    monkeypatch.setattr("flmq.round.memory._ASKS", 2)
    for record, until, kept in ((False, 9, True), (False, 0, False), (True, 9, False)):
        state = JobState(has_record=record, late_until=until)
        for number in range(1, 5):
            key = PhaseKey(number, Phase.FIT)
            state.handle(opened(key, "a", hands_over=True))
            state.handle(PhaseEvent(key, DeadlinePassed(), 0.0))
            state.handle(PhaseClosedDurably(key))
        assert state.remembers(FIT) is kept
        if kept:
            assert state.fate_of("1/a") is Fate.LATE_WANTED


# -- partial sums


def test_a_partial_sum_is_one_event_journalled_counted_merged_answered_and_acked() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b", "c"))
    no = ReplyFailed("b", "no")
    actions = state.handle(sum_came(state, 10, "a", "b", claims={"b": no}))
    yes, failed = Verdict(Outcome.ACCEPTED), Verdict(Outcome.FAILED, "no")
    assert actions == [
        Enter(11, FIT, "a", Entry.REPLY, yes),
        Enter(12, FIT, "b", Entry.REPLY, failed),
        EnterSum(10, FIT, (11, 12)),
        Count(FIT, "a", yes, 11),
        Count(FIT, "b", failed, 12),
        Merge(10, FIT),
        SendReceipt(11, yes),
        SendReceipt(12, failed),
        SendReceipt(10, yes),
        Ack(10),
    ]
    assert state.round_of(FIT).pending() == ("c",)


def test_a_round_is_over_only_after_the_whole_sum() -> None:
    state = JobState(has_record=True)
    event = replace(opened(FIT, *"abcd"), policy=Policy(min_results=0, target_results=2))
    state.handle(event)
    *_, close = state.handle(sum_came(state, 10, "a", "b", "c"))
    assert isinstance(close, ClosePhase)
    assert close.close.accepted == ("a", "b", "c")
    assert state.round_of(FIT).accepted() == ("a", "b", "c")


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        (("b", "a"), "it lists a, whose answer is settled already"),
        (("b", "b"), "it lists b twice"),
        (("b", "z"), "it lists task 1/z, which was not asked in this phase"),
    ],
)
def test_a_sum_is_refused_whole_with_the_reason(asks: tuple[str, ...], reason: str) -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b", "c"))
    state.handle(came(state, 1, "1/a"))
    event = sum_came(state, 10, *asks)
    assert event.fate is SumFate.REFUSED
    said = Verdict(Outcome.REJECTED, reason)
    assert state.handle(event) == [Refuse(10, FIT, reason), SendReceipt(10, said), Ack(10)]
    assert state.round_of(FIT).pending() == ("b", "c")


def test_so_is_one_that_does_not_fit() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b"))
    refuse, *_ = state.handle(sum_came(state, 10, "a", problem="its weight is wrong"))
    assert refuse == Refuse(10, FIT, "its weight is wrong")
    assert kinds(state.handle(sum_came(state, 20, "a"))).count("Merge") == 1


def test_a_sum_that_comes_again_is_a_duplicate_and_its_clients_are_told_again() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b", "c"))
    state.handle(sum_came(state, 10, "a", "b"))
    again = state.handle(sum_came(state, 20, "a", "b"))
    word = Verdict(Outcome.DUPLICATE)
    assert again == [*(SendReceipt(token, word) for token in (21, 22, 20)), Ack(20)]


def test_a_sum_waits_for_its_phase_to_be_opened_and_to_be_closed_durably() -> None:
    state = JobState(has_record=True, awaited={"1/a": (FIT, "a"), "1/b": (FIT, "b")})
    assert state.handle(sum_came(state, 10, "a")) == []
    assert state.handle(opened(FIT, "a", "b")) == [JudgeAgain(10)]
    state.handle(came(state, 1, "1/a"))
    event = sum_came(state, 10, "b", order="1/!t")
    state.handle(PhaseEvent(FIT, DeadlinePassed(), 5.0))
    assert state.handle(event) == [JudgeAgain(10)]
    assert state.handle(sum_came(state, 10, "a", "b")) == []
    assert state.handle(PhaseClosedDurably(FIT)) == [JudgeAgain(10)]
    first, second, *rest = state.handle(sum_came(state, 10, "a", "b", at=6.5))
    assert isinstance(first, Enter)
    assert isinstance(second, Enter)
    assert first.verdict == Verdict(Outcome.DUPLICATE, late_by=1.5)
    assert second.verdict == Verdict(Outcome.LATE, late_by=1.5)
    assert "Merge" not in kinds(rest)
    assert state.fate_of("1/b") is Fate.DUPLICATE


def test_a_sum_from_the_record_is_counted_and_merged_and_no_more() -> None:
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b"))
    event = sum_came(state, 10, "a", origin=Origin.RECORD)
    assert kinds(state.handle(event)) == ["Count", "Merge", "Ack"]
    assert state.fate_of_sum("1/!s", FIT, ["1/a"]) is SumFate.DUPLICATE


def test_a_sum_of_nobody_is_answered_and_neither_entered_nor_merged() -> None:
    """What is not durable adds nothing, or a resumed job would have other bits."""
    state = JobState(has_record=True)
    state.handle(opened(FIT, "a", "b"))
    assert kinds(state.handle(sum_came(state, 10))) == ["SendReceipt", "Ack"]


def test_a_sum_of_what_nobody_knows_is_long_over() -> None:
    state = JobState(has_record=True)
    receipt, ack = state.handle(sum_came(state, 10, "a"))
    assert receipt == SendReceipt(10, Verdict(Outcome.LATE, note="its round is long over"))
    assert ack == Ack(10)


# -- any order of everything, and a crash after any action


class Disk:
    """What a crash leaves: the record, and the messages that are not acked."""

    def __init__(self) -> None:
        self.replies: dict[tuple[PhaseKey, str], tuple[str, Claim | None]] = {}
        self.late: dict[tuple[PhaseKey, str], LateReplyRef | None] = {}
        self.planned: dict[PhaseKey, PhaseOpened] = {}
        self.closed: dict[PhaseKey, ClosePhase] = {}
        self.unacked: dict[int, tuple[str, Claim]] = {}
        self.sums: dict[str, tuple[PhaseKey, tuple[str, ...]]] = {}
        self.unacked_sums: dict[int, str] = {}


CLIENTS = ("a", "b", "c", "a#2")
ROUNDS = 4


@settings(max_examples=150, stateful_step_count=40, deadline=None)
class Job(RuleBasedStateMachine):
    """Plays a server with a journal, which may die after any single action."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = Disk()
        self.tokens = 0
        self.made: dict[str, tuple[PhaseKey, dict[str, Claim]]] = {}
        """Partial sums, by order: the same whenever they come."""
        self.receipts: dict[str, set[Outcome]] = {}
        self.counted: dict[tuple[PhaseKey, str], Outcome] = {}
        self.resume()

    # -- the server's life

    def resume(self) -> None:
        """Start a server on what the disk has; what is un-acked is delivered again."""
        disk = self.disk
        left = {k: plan for k, plan in disk.planned.items() if k not in disk.closed}
        taken = {ref for close in disk.closed.values() for ref in close.close.carried}
        waiting = sorted(ref for ref in disk.late.values() if ref is not None and ref not in taken)
        self.state = JobState(
            has_record=True,
            late_until=ROUNDS,
            awaited={t: (k, ask) for k, plan in left.items() for t, ask in plan.asks.items()},
            waiting=waiting,
            last=max((k.server_round for k in disk.closed), default=0),
        )
        self.actions: list[JobAction] = []
        self.replies: dict[int, tuple[str, Claim]] = {}
        self.closing: dict[PhaseKey, ClosePhase] = {}
        self.memory: dict[tuple[PhaseKey, str], Outcome] = {}
        self.carried: dict[PhaseKey, set[LateReplyRef]] = {}
        self.sums: dict[int, tuple[str, tuple[SumEntry, ...]]] = {}
        self.merged: dict[PhaseKey, list[str]] = {}
        for task, claim in list(disk.unacked.values()):
            self.deliver(task, claim)
        for order in list(disk.unacked_sums.values()):
            self.deliver_sum(order)
        disk.unacked_sums = {t: o for t, o in disk.unacked_sums.items() if t in self.sums}
        self.disk.unacked = {t: r for t, r in disk.unacked.items() if t in self.replies}

    def deliver(self, task: str, claim: Claim) -> None:
        self.tokens += 1
        self.replies[self.tokens] = self.disk.unacked[self.tokens] = task, claim
        self.judge(self.tokens)

    def deliver_sum(self, order: str) -> None:
        self.tokens += 1
        token = self.tokens
        self.disk.unacked_sums[token] = order
        self.register_sum(token, order)
        self.judge_sum(token)

    def register_sum(self, token: int, order: str) -> None:
        entries = []
        key, claims = self.made[order]
        for ask, claim in claims.items():
            self.tokens += 1
            task = f"{key.server_round}/{ask}"
            self.replies[self.tokens] = task, claim
            entries.append(SumEntry(self.tokens, task, claim))
        self.sums[token] = order, tuple(entries)

    def judge_sum(self, token: int, origin: Origin = Origin.QUEUE) -> None:
        order, entries = self.sums[token]
        key = self.made[order][0]
        fate = self.state.fate_of_sum(order, key, [each.task_id for each in entries])
        self.feed(SumCame(token, order, key, entries, fate, 0.0, origin))

    def recorded(self, task: str) -> Recorded | None:
        if self.state.phase_of(task) is not None:
            return None
        for key, plan in self.disk.planned.items():
            if task in plan.asks and key in self.disk.closed:
                ask = plan.asks[task]
                answered = (key, ask) in self.disk.replies or (key, ask) in self.disk.late
                return Recorded(key, ask, answered, 1.0)
        return None

    def judge(self, token: int, origin: Origin = Origin.QUEUE) -> None:
        task, claim = self.replies[token]
        recorded = self.recorded(task)
        note = "" if isinstance(claim, ReplyAccepted) else "rejected: no"
        self.feed(
            came(self.state, token, task, claim=claim, recorded=recorded, note=note, origin=origin)
        )

    def feed(self, event: JobEvent) -> None:
        self.actions += self.state.handle(event)

    def do(self, action: JobAction) -> None:
        disk = self.disk
        match action:
            case Enter(token, key, ask, entry, verdict):
                task, claim = self.replies[token]
                if entry is Entry.LATE:
                    ref = LateReplyRef(ask.partition("#")[0], key.server_round, task)
                    if verdict.outcome is Outcome.LATE:
                        assert (key, ask) not in disk.late
                        assert key in disk.closed, "nothing is late to a phase that may yet close"
                        disk.late[key, ask] = ref if verdict.into is not None else None
                elif entry is Entry.JUDGED:
                    assert disk.replies[key, ask][1] is None
                    disk.replies[key, ask] = task, claim
                elif entry is Entry.UNJUDGED:
                    # It may be un-acked, and in the record already.
                    disk.replies.setdefault((key, ask), (task, None))
                else:
                    assert disk.replies.get((key, ask), ("", None))[1] is None
                    disk.replies[key, ask] = task, claim
            case Count(key, ask, verdict, token):
                if verdict.outcome not in (Outcome.LATE, Outcome.DUPLICATE):
                    assert (key, ask) not in self.memory, "an ask is settled once"
                    self.memory[key, ask] = verdict.outcome
            case EnterSum(token, key, answers):
                order, entries = self.sums[token]
                assert answers == tuple(each.token for each in entries)
                assert order not in disk.sums
                disk.sums[order] = key, tuple(self.replies[answer][0] for answer in answers)
            case Merge(token, key):
                order, _ = self.sums[token]
                assert order in disk.sums, "nothing is merged that is not durable"
                assert order not in self.merged.setdefault(key, []), "a sum is merged once"
                self.merged[key].append(order)
            case Refuse():
                pass
            case Carry(key, ref):
                assert ref not in self.carried.setdefault(key, set())
                self.carried[key].add(ref)
            case SendReceipt(token, verdict) if token not in self.sums:
                self.receipts.setdefault(self.replies[token][0], set()).add(verdict.outcome)
            case Ack(token) | Keep(token):
                disk.unacked.pop(token, None)
                disk.unacked_sums.pop(token, None)
            case JudgeAgain(token) if token in self.sums:
                self.judge_sum(token)
            case JudgeAgain(token):
                self.judge(token)
            case ClosePhase(key, _):
                self.closing[key] = action

    # -- what happens

    @precondition(lambda self: self.actions)
    @rule()
    def act(self) -> None:
        """Do one thing; what is entered is entered together, in one transaction."""
        while self.actions and isinstance(self.actions[0], Enter | EnterSum):
            self.do(self.actions.pop(0))
        if self.actions:
            self.do(self.actions.pop(0))

    @precondition(lambda self: self.actions)
    @rule()
    def act_all(self) -> None:
        while self.actions:
            self.do(self.actions.pop(0))

    @rule(number=st.integers(1, ROUNDS))
    def open(self, number: int) -> None:
        key = PhaseKey(number, Phase.FIT)
        if self.state.remembers(key) or any(
            k.server_round < number and k not in self.disk.closed for k in self.disk.planned
        ):
            return
        self.act_all_quietly()
        event = self.disk.planned.get(key) or opened(key, *CLIENTS, hands_over=True)
        self.disk.planned[key] = event
        closed = self.disk.closed.get(key)
        self.feed(replace(event, carried=None if closed is None else closed.close.carried))
        summed = {task for of, tasks in self.disk.sums.values() if of == key for task in tasks}
        for order in [order for order, (of, _) in self.disk.sums.items() if of == key]:
            self.tokens += 1
            token = self.tokens
            self.register_sum(token, order)
            self.judge_sum(token, Origin.RECORD)
        for (of, ask), (task, claim) in list(self.disk.replies.items()):
            if of == key and task not in summed:
                self.tokens += 1
                self.replies[self.tokens] = task, claim or ReplyAccepted(ask)
                self.judge(self.tokens, Origin.UNJUDGED if claim is None else Origin.RECORD)
        if closed is not None:
            self.feed(PhaseEvent(key, Stopped(closed.close.reason), 0.0))
            late = {ask for of, ask in self.disk.late if of == key}
            self.feed(RepliedLateBefore(key, frozenset(late)))

    def act_all_quietly(self) -> None:
        while self.actions:
            self.do(self.actions.pop(0))

    @rule(
        number=st.integers(1, ROUNDS),
        ask=st.sampled_from(CLIENTS),
        kind=st.sampled_from([ReplyAccepted, ReplyFailed, ReplyRejected]),
    )
    def reply(self, number: int, ask: str, kind: type[Claim]) -> None:
        if PhaseKey(number, Phase.FIT) in self.disk.planned:
            claim = ReplyAccepted(ask) if kind is ReplyAccepted else kind(ask, "no")  # type: ignore[call-arg]
            self.deliver(f"{number}/{ask}", claim)

    @rule(
        number=st.integers(1, ROUNDS),
        site=st.sampled_from(["!s", "!t"]),
        asks=st.sets(st.sampled_from(CLIENTS)),
        kind=st.sampled_from([ReplyAccepted, ReplyRejected]),
    )
    def partial_sum(self, number: int, site: str, asks: set[str], kind: type[Claim]) -> None:
        """The sum of some clients' replies; one that was made comes again as it was."""
        key, order = PhaseKey(number, Phase.FIT), f"{number}/{site}"
        if key in self.disk.planned:
            of: dict[str, Claim] = {
                ask: ReplyAccepted(ask) if kind is ReplyAccepted else ReplyRejected(ask, "no")
                for ask in sorted(asks)
            }
            self.made.setdefault(order, (key, of))
            self.deliver_sum(order)

    @rule(number=st.integers(1, ROUNDS), ask=st.sampled_from(CLIENTS))
    def unroutable(self, number: int, ask: str) -> None:
        key = PhaseKey(number, Phase.FIT)
        if self.state.remembers(key):
            self.feed(PhaseEvent(key, TaskUnroutable(ask), 0.0))

    @rule(number=st.integers(1, ROUNDS))
    def deadline(self, number: int) -> None:
        key = PhaseKey(number, Phase.FIT)
        if self.state.remembers(key):
            self.feed(PhaseEvent(key, DeadlinePassed(), 0.0))

    @precondition(lambda self: self.closing)
    @rule()
    def close(self) -> None:
        """Whoever waited for a phase enters its closing set; the same again, after a restart."""
        key, action = self.closing.popitem()
        before = self.disk.closed.get(key)
        if before is None:
            for ask in action.close.accepted:
                assert self.disk.replies[key, ask][1] is not None
            assert set(action.close.carried) == self.carried.get(key, set())
            self.disk.closed[key] = action
        else:
            assert action.close.accepted == before.close.accepted
            assert action.close.carried == before.close.carried
        self.feed(PhaseClosedDurably(key))

    @rule(number=st.integers(1, ROUNDS), early=st.sets(st.sampled_from(CLIENTS)))
    def play_through(self, number: int, early: set[str]) -> None:
        """A whole round, in which the others come late: deeper states are reached by this."""
        self.open(number)
        key = PhaseKey(number, Phase.FIT)
        if not self.state.remembers(key):
            return
        for ask in sorted(early):
            self.reply(number, ask, ReplyAccepted)
        self.deadline(number)
        self.act_all_quietly()
        while self.closing:
            self.close()
        for ask in CLIENTS:
            self.reply(number, ask, ReplyAccepted)

    @rule()
    def crash(self) -> None:
        self.resume()

    # -- what always holds

    @invariant()
    def a_late_reply_counts_in_one_round_at_most(self) -> None:
        taken = [ref for close in self.disk.closed.values() for ref in close.close.carried]
        assert len(taken) == len(set(taken))

    @invariant()
    def nothing_that_settles_is_acked_before_it_is_durable(self) -> None:
        """A client that was told that its reply counts finds it in the record."""
        for task, outcomes in self.receipts.items():
            number, _, ask = task.partition("/")
            key = PhaseKey(int(number), Phase.FIT)
            if outcomes & {Outcome.ACCEPTED, Outcome.FAILED, Outcome.REJECTED}:
                assert (key, ask) in self.disk.replies
            if Outcome.LATE in outcomes:
                assert (key, ask) in self.disk.late
            # An ask has one first reply, whatever crashed in between.
            assert len(outcomes - {Outcome.DUPLICATE}) <= 1

    @invariant()
    def a_sum_counts_whole_or_not_at_all(self) -> None:
        """Whatever crashed: all its answers are in the record by it, or none."""
        for key, tasks in self.disk.sums.values():
            for task in tasks:
                assert self.disk.replies[key, task.partition("/")[2]][0] == task
        listed = [task for _, tasks in self.disk.sums.values() for task in tasks]
        assert len(listed) == len(set(listed)), "no reply is in two sums"

    @invariant()
    def no_ask_has_a_reply_in_time_and_a_late_one(self) -> None:
        for key, ask in self.disk.late:
            if (key, ask) in self.disk.replies:
                close = self.disk.closed[key].close
                assert ask not in close.accepted


Job.TestCase.settings = settings(
    max_examples=150,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestJob = Job.TestCase
