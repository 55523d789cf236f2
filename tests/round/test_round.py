"""The round's machine: every order of events, its whole state after each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flmq.round import (
    Action,
    Carry,
    Close,
    DeadlinePassed,
    Event,
    LateReplyOffered,
    LateReplyRef,
    Outcome,
    Policy,
    ReplyAccepted,
    ReplyFailed,
    ReplyRejected,
    Round,
    RoundState,
    Settle,
    SettledTogether,
    Stopped,
    TaskOutcome,
    TaskState,
    TaskUnroutable,
    UnexpectedEvent,
)
from flmq.round.state import TASK_TRANSITIONS

P, A, F, R, U, S, L, T = (
    TaskState.PENDING,
    TaskState.ACCEPTED,
    TaskState.FAILED,
    TaskState.REJECTED,
    TaskState.UNROUTABLE,
    TaskState.SILENT,
    TaskState.LOST,
    TaskState.LATE,
)


def settle(client_id: str, word: Outcome, reason: str = "") -> Settle:
    return Settle(TaskOutcome(client_id, word, reason))


class Play:
    """Feeds events to a round and checks the whole of it after each."""

    def __init__(self, *asked: str, policy: Policy | None = None) -> None:
        self.round = Round(asked, policy or Policy(), label="test")
        self.actions = self.round.open()

    def feed(
        self, event: Event, *actions: Action, state: RoundState, tasks: tuple[TaskState, ...]
    ) -> None:
        got = self.round.handle(event)
        self.actions += got
        assert got == list(actions)
        assert self.round.state is state
        assert tuple(self.round.tasks.values()) == tasks


def test_closes_when_all_have_answered() -> None:
    play = Play("b", "a")
    play.feed(
        ReplyAccepted("b"), settle("b", Outcome.ACCEPTED), state=RoundState.OPEN, tasks=(A, P)
    )
    play.feed(
        ReplyAccepted("a"),
        settle("a", Outcome.ACCEPTED),
        Close("all answered", ("a", "b"), enough=True),
        state=RoundState.CLOSED,
        tasks=(A, A),
    )


def test_failed_and_rejected_replies_settle_but_do_not_count() -> None:
    play = Play("a", "b")
    play.feed(
        ReplyFailed("a", "ValueError: x"),
        settle("a", Outcome.FAILED, "ValueError: x"),
        state=RoundState.OPEN,
        tasks=(F, P),
    )
    play.feed(
        ReplyRejected("b", "NaN"),
        settle("b", Outcome.REJECTED, "NaN"),
        Close("all answered", (), enough=False),
        state=RoundState.CLOSED,
        tasks=(F, R),
    )


def test_the_deadline_turns_the_pending_into_silent() -> None:
    play = Play("a", "b", "c")
    play.feed(
        ReplyAccepted("c"), settle("c", Outcome.ACCEPTED), state=RoundState.OPEN, tasks=(P, P, A)
    )
    play.feed(TaskUnroutable("a"), state=RoundState.OPEN, tasks=(U, P, A))
    play.feed(
        DeadlinePassed(),
        settle("a", Outcome.UNROUTABLE, "no queue on the broker"),
        settle("b", Outcome.SILENT, "deadline"),
        Close("deadline", ("c",), enough=True),
        state=RoundState.CLOSED,
        tasks=(L, S, A),
    )


def test_a_reply_after_the_deadline_is_late_and_a_second_one_a_duplicate() -> None:
    play = Play("a", "b")
    play.feed(
        ReplyAccepted("a"), settle("a", Outcome.ACCEPTED), state=RoundState.OPEN, tasks=(A, P)
    )
    play.feed(
        ReplyAccepted("a"), settle("a", Outcome.DUPLICATE), state=RoundState.OPEN, tasks=(A, P)
    )
    play.round.handle(DeadlinePassed())
    closed_with = play.round.outcomes()
    play.feed(ReplyAccepted("b"), settle("b", Outcome.LATE), state=RoundState.CLOSED, tasks=(A, T))
    for client_id in ("a", "b"):
        play.feed(
            ReplyAccepted(client_id),
            settle(client_id, Outcome.DUPLICATE),
            state=RoundState.CLOSED,
            tasks=(A, T),
        )
    play.feed(DeadlinePassed(), state=RoundState.CLOSED, tasks=(A, T))
    assert play.round.outcomes() == closed_with
    assert [o.outcome for o in closed_with] == [Outcome.ACCEPTED, Outcome.SILENT]


@pytest.mark.parametrize(
    "event", [ReplyAccepted("a"), ReplyFailed("a", "x"), ReplyRejected("a", "x")]
)
@pytest.mark.parametrize("lost", [False, True])
def test_whatever_comes_late_is_late_once(event: Event, lost: bool) -> None:
    play = Play("a")
    if lost:
        play.round.handle(TaskUnroutable("a"))
    play.round.handle(DeadlinePassed())
    (late,) = play.round.handle(event)
    assert isinstance(late, Settle)
    assert late.outcome.outcome is Outcome.LATE
    (again,) = play.round.handle(event)
    assert isinstance(again, Settle)
    assert again.outcome.outcome is Outcome.DUPLICATE
    (outcome,) = play.round.outcomes()
    assert outcome.outcome is (Outcome.UNROUTABLE if lost else Outcome.SILENT)


def test_a_late_reply_of_an_earlier_round_counts_while_this_one_is_open() -> None:
    play = Play("a", policy=Policy(min_results=2, target_results=2))
    second, first = LateReplyRef("z", 4, "z-4"), LateReplyRef("a", 3, "a-3")
    for carried in (second, first):
        play.feed(LateReplyOffered(carried), Carry(carried), state=RoundState.OPEN, tasks=(P,))
    play.feed(LateReplyOffered(first), state=RoundState.OPEN, tasks=(P,))
    play.feed(
        ReplyAccepted("a"),
        settle("a", Outcome.ACCEPTED),
        # It is no result of this round's own: the quorum is missed all the same.
        Close("all answered", ("a",), False, (first, second)),
        state=RoundState.CLOSED,
        tasks=(A,),
    )
    play.feed(LateReplyOffered(LateReplyRef("y", 4, "y-4")), state=RoundState.CLOSED, tasks=(A,))


def test_whichever_of_deadline_and_last_reply_is_fed_first_wins() -> None:
    first = Play("a")
    first.round.handle(ReplyAccepted("a"))
    assert first.round.handle(DeadlinePassed()) == []
    assert first.round.accepted() == ("a",)
    second = Play("a")
    second.round.handle(DeadlinePassed())
    assert second.round.handle(ReplyAccepted("a")) == [settle("a", Outcome.LATE)]
    assert second.round.accepted() == ()


def test_over_selection_closes_at_its_target() -> None:
    play = Play("a", "b", "c", policy=Policy(min_results=1, target_results=2))
    play.round.handle(ReplyAccepted("c"))
    play.feed(
        ReplyAccepted("a"),
        settle("a", Outcome.ACCEPTED),
        settle("b", Outcome.SILENT, "enough answered (2)"),
        Close("enough answered (2)", ("a", "c"), enough=True),
        state=RoundState.CLOSED,
        tasks=(A, S, A),
    )


def test_a_reply_replaces_unroutable_while_the_round_is_open() -> None:
    play = Play("a", "b")
    play.round.handle(TaskUnroutable("a"))
    play.feed(
        ReplyAccepted("a"), settle("a", Outcome.ACCEPTED), state=RoundState.OPEN, tasks=(A, P)
    )


def test_too_few_results_close_without_being_enough() -> None:
    play = Play("a", "b", policy=Policy(min_results=2))
    play.round.handle(ReplyAccepted("a"))
    assert play.round.handle(Stopped("interrupted"))[-1] == Close("interrupted", ("a",), False)


def test_a_round_that_asks_nobody_closes_at_once() -> None:
    assert Play().actions == [Close("all answered", (), False)]


def test_a_stranger_is_the_callers_fault() -> None:
    with pytest.raises(UnexpectedEvent, match=r"ReplyAccepted for 'x', who was not asked"):
        Play("a").round.handle(ReplyAccepted("x"))


@pytest.mark.parametrize(("low", "target"), [(-1, None), (3, 2), (0, 0)])
def test_contradictory_policies_are_refused(low: int, target: int | None) -> None:
    with pytest.raises(ValueError, match="results"):
        Policy(low, target)


def test_asking_a_client_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="asked twice"):
        Round(("a", "a"), Policy())


def test_every_state_has_a_row_for_every_event() -> None:
    events = set(TASK_TRANSITIONS[TaskState.PENDING])
    assert set(TASK_TRANSITIONS) == set(TaskState)
    assert all(set(row) == events for row in TASK_TRANSITIONS.values())


CLIENTS = ("a", "b", "c")
ANY_EVENT: st.SearchStrategy[Event] = st.one_of(
    st.builds(ReplyAccepted, st.sampled_from(CLIENTS)),
    st.builds(ReplyFailed, st.sampled_from(CLIENTS), st.just("why")),
    st.builds(ReplyRejected, st.sampled_from(CLIENTS), st.just("why")),
    st.builds(TaskUnroutable, st.sampled_from(CLIENTS)),
    st.just(DeadlinePassed()),
    st.just(Stopped("stop")),
    st.builds(
        LateReplyOffered,
        st.builds(LateReplyRef, st.sampled_from(CLIENTS), st.integers(1, 2), st.just("task")),
    ),
)


def run(events: Iterable[Event], policy: Policy) -> tuple[Round, list[Action]]:
    round_ = Round(CLIENTS, policy)
    actions = round_.open()
    for event in events:
        actions += round_.handle(event)
    return round_, actions


@given(st.lists(ANY_EVENT, max_size=30), st.sampled_from([None, 1, 2, 3]))
def test_any_history_settles_each_task_once_and_closes_at_most_once(
    events: list[Event], target: int | None
) -> None:
    round_, actions = run([*events, DeadlinePassed()], Policy(target_results=target))
    final = [
        a.outcome
        for a in actions
        if isinstance(a, Settle) and a.outcome.outcome not in (Outcome.LATE, Outcome.DUPLICATE)
    ]
    assert sorted(o.client_id for o in final) == list(CLIENTS)
    assert tuple(sorted(final, key=lambda o: o.client_id)) == round_.outcomes()
    closes = [a for a in actions if isinstance(a, Close)]
    assert len(closes) == 1
    assert closes[0].accepted == round_.accepted()
    assert closes[0].accepted == tuple(
        sorted(o.client_id for o in final if o.outcome is Outcome.ACCEPTED)
    )
    assert TaskState.PENDING not in round_.tasks.values()
    assert closes[0].carried == tuple(sorted(a.carried for a in actions if isinstance(a, Carry)))
    assert len(set(closes[0].carried)) == len(closes[0].carried)


@given(st.lists(st.sampled_from(range(3)), max_size=6))
def test_the_closing_set_does_not_depend_on_order_or_duplicates(again: list[int]) -> None:
    replies: list[Event] = [ReplyAccepted("a"), ReplyFailed("b", "x"), ReplyAccepted("c")]
    repeated = replies + [replies[i] for i in again]
    results = set()
    for order in itertools.permutations(range(3)):
        round_, _ = run([replies[i] for i in order] + repeated, Policy())
        results.add((round_.accepted(), round_.outcomes()))
    assert len(results) == 1


def test_a_batch_counts_whole_even_beyond_the_target() -> None:
    machine = Round(("a", "b", "c", "d"), Policy(min_results=0, target_results=2))
    claims = (ReplyAccepted("a"), ReplyFailed("b", "no"), ReplyAccepted("c"), ReplyAccepted("d"))
    *settled, close = machine.handle(SettledTogether(claims))
    assert [each.outcome.client_id for each in settled if isinstance(each, Settle)] == list("abcd")
    assert isinstance(close, Close)
    assert close.accepted == ("a", "c", "d")
