"""Replies that come late or twice: entered once, kept for the round they count in, no longer."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flmq.journal import (
    ClosedPhase,
    Contribution,
    Fenced,
    Journal,
    KeepPolicy,
    LateEntry,
    LateReply,
    PhaseKey,
)
from flmq.journal.opening import DATABASE
from flmq.journal.schema import FORMAT
from flmq.round import LateReplyRef, Outcome, TaskOutcome
from tests.journal.runs import (
    ABOUT,
    FINGERPRINT,
    IDENTITY,
    answer,
    closing,
    end_round,
    fit,
    model,
    names,
    plan,
    play_round,
    reopened,
    told,
    upload,
    without_sums,
)


def late(client_id: str, seconds: float = 2.0, *, kept: Contribution | None = None) -> LateEntry:
    return LateEntry(fit(1), client_id, Outcome.LATE, seconds, kept=kept)


def spooled(journal: Journal, client_id: str) -> Contribution:
    """A late reply whose parameters are on disk."""
    path, blob = upload(journal, model(77))
    reply = answer(client_id, kind=Outcome.LATE, blob=blob)
    journal.adopt_reply(reply.task_id, path, blob)
    return reply


def missed(journal: Journal, *silent: str) -> None:
    """A first round that these clients missed; not yet done."""
    journal.phases.open(fit(1), plan(["z", *silent]))
    journal.phases.contribute(fit(1), answer("z"))
    journal.phases.close(fit(1), closing("z", silent=silent))


def closing_with(*carried: LateReplyRef) -> ClosedPhase:
    outcomes = (TaskOutcome("z", Outcome.ACCEPTED),)
    return ClosedPhase("all answered", ("z",), outcomes, 1.0, carried=carried)


def open_second(journal: Journal) -> PhaseKey:
    journal.phases.open(fit(2), plan(["z"], 2))
    journal.phases.contribute(fit(2), answer("z", 2))
    return fit(2)


def test_a_late_reply_is_entered_once_and_what_follows_is_a_duplicate(journal: Journal) -> None:
    missed(journal, "a", "b")
    again = LateEntry(fit(1), "z", Outcome.DUPLICATE, 0.0)
    assert journal.phases.take_in((), [late("a", 2.0), late("a", 3.5), again]) == (
        [],
        [Outcome.LATE, Outcome.DUPLICATE, Outcome.DUPLICATE],
    )
    end_round(journal, 1)
    journal = reopened(journal)
    assert journal.phases.take_in((), [late("a", 9.0)])[1] == [Outcome.DUPLICATE]
    (row,) = journal.rounds()
    assert set(row.phases[0].late) == {
        LateReply("a", Outcome.LATE, 2.0, 1),
        LateReply("a", Outcome.DUPLICATE, 9.0, 2),
        LateReply("z", Outcome.DUPLICATE, 0.0, 1),
    }


def test_answers_and_late_replies_are_entered_together_or_not_at_all(journal: Journal) -> None:
    missed(journal, "a")
    journal.phases.open(fit(2), plan(["z"], 2))
    unknown = LateEntry(fit(9), "a", Outcome.LATE, 1.0)
    with pytest.raises(RuntimeError, match="round 9, fit was not opened"):
        journal.phases.take_in([(fit(2), answer("z", 2))], [late("a"), unknown])
    record = journal.phases.find(fit(2))
    assert record is not None
    assert record.contributions == ()
    assert journal.rounds()[0].phases[0].late == ()


def test_how_long_ago_a_phase_was_closed(tmp_path: Path) -> None:
    now = 1_700_000_000_000_000_000
    journal = Journal.open(tmp_path, clock=lambda: now)
    journal.begin(IDENTITY, FINGERPRINT, ABOUT)
    journal.take_charge()
    journal.phases.open(fit(1), plan(["a"]))
    assert journal.phases.seconds_since_closed(fit(1)) is None
    journal.phases.close(fit(1), closing(silent=["a"]))
    now += 3_200_000_000
    assert journal.phases.seconds_since_closed(fit(1)) == 3.2
    assert journal.phases.seconds_since_closed(fit(7)) is None


def test_a_kept_reply_waits_counts_in_one_round_and_goes_with_it(journal: Journal) -> None:
    missed(journal, "a", "b")
    kept = {client: spooled(journal, client) for client in ("b", "a")}
    journal.phases.take_in((), [late(client, kept=reply) for client, reply in kept.items()])
    end_round(journal, 1)
    journal = reopened(journal)
    waiting = journal.phases.waiting_late()
    assert [each.contribution for each in waiting] == [kept["a"], kept["b"]]
    assert {(each.key, each.seconds) for each in waiting} == {(fit(1), 2.0)}
    parameters = journal.reply_parameters(waiting[0].contribution)
    assert parameters is not None
    assert [bytes(t) for t in parameters.tensors] == model(77).tensors
    assert {each.waits for each in journal.rounds()[0].phases[0].late} == {True}

    closed = closing_with(LateReplyRef("a", 1, kept["a"].task_id))
    journal.phases.close(open_second(journal), closed)
    journal = reopened(journal)
    assert journal.phases.closed(fit(2)) == closed
    assert [each.contribution.client_id for each in journal.phases.carried_into(fit(2))] == ["a"]
    assert [each.contribution.client_id for each in journal.phases.waiting_late()] == ["b"]
    end_round(journal, 2)
    assert journal.phases.carried_into(fit(2)) == []
    assert len(names(journal.folder / "replies")) == 1  # that of b, which still waits
    assert set(journal.rounds()[0].phases[0].late) == {
        LateReply("a", Outcome.LATE, 2.0, 1, into=2),
        LateReply("b", Outcome.LATE, 2.0, 1, waits=True),
    }
    # Delivered once more, long after its bytes are gone: it has counted, and does not again.
    again = late("a", 99.0, kept=spooled(journal, "a"))
    assert journal.phases.take_in((), [again])[1] == [Outcome.DUPLICATE]
    assert [each.contribution.client_id for each in journal.phases.waiting_late()] == ["b"]


def test_what_counted_is_kept_where_replies_are(journal: Journal) -> None:
    journal.keep(KeepPolicy(replies="all"))
    missed(journal, "a")
    reply = spooled(journal, "a")
    journal.phases.take_in((), [late("a", kept=reply)])
    end_round(journal, 1)
    journal.phases.close(open_second(journal), closing_with(LateReplyRef("a", 1, reply.task_id)))
    end_round(journal, 2)
    play_round(journal, 3)
    assert [each.contribution for each in journal.phases.carried_into(fit(2))] == [reply]


def test_a_reply_is_taken_by_one_round_only_and_only_if_it_is_there(journal: Journal) -> None:
    missed(journal, "a")
    reply = spooled(journal, "a")
    taken = closing_with(LateReplyRef("a", 1, reply.task_id))
    open_second(journal)
    with pytest.raises(RuntimeError, match="late reply of a to round 1 was not journalled"):
        journal.phases.close(fit(2), taken)
    journal.phases.take_in((), [late("a", kept=reply)])
    journal.phases.close(fit(2), taken)
    journal.phases.close(fit(2), taken)
    journal.phases.open(fit(3), plan(["z"], 3))
    journal.phases.contribute(fit(3), answer("z", 3))
    with pytest.raises(RuntimeError, match="counts elsewhere"):
        journal.phases.close(fit(3), taken)
    record = journal.phases.find(fit(3))
    assert record is not None
    assert record.closed is None


def test_what_could_still_count_where_it_was_asked_for_is_not_kept(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a"]))
    with pytest.raises(RuntimeError, match="round 1, fit is open"):
        journal.phases.take_in((), [late("a", kept=spooled(journal, "a"))])


def test_who_is_fenced_enters_nothing(journal: Journal) -> None:
    missed(journal, "a")
    other = Journal.open(journal.folder)
    other.take_charge()
    with pytest.raises(Fenced):
        journal.phases.take_in((), [late("a")])
    assert other.rounds()[0].phases[0].late == ()


def test_a_journal_of_the_format_before_is_brought_up(journal: Journal) -> None:
    play_round(journal, 1)
    before = told(journal, older=True)
    journal.close()
    database = sqlite3.connect(journal.folder / DATABASE)
    for column in ("note", "task_id", "reply", "blob", "size", "into_phase"):
        database.execute(f"ALTER TABLE late DROP COLUMN {column}")
    database.execute("ALTER TABLE phases DROP COLUMN closed_unix_ms")
    without_sums(database)
    database.execute("PRAGMA user_version=1")
    database.commit()
    database.close()
    journal = Journal.open(journal.folder)
    journal.take_charge()
    assert told(journal, older=True) == before
    assert journal.phases.seconds_since_closed(fit(1)) is None
    assert journal.phases.take_in((), [late("a")])[1] == [Outcome.LATE]
    journal.close()
    database = sqlite3.connect(journal.folder / DATABASE)
    assert database.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    database.close()


def answered_too_late(journal: Journal) -> Contribution:
    """An answer that was judged in time, and written down when its phase had closed."""
    path, blob = upload(journal, model(77))
    reply = answer("a", blob=blob)
    journal.adopt_reply(reply.task_id, path, blob)
    missed(journal, "a")
    assert journal.phases.take_in([(fit(1), reply)], ())[0] == [Outcome.LATE]
    return reply


def test_what_is_late_by_a_moment_is_there_to_be_entered_when_the_round_has_ended(
    journal: Journal,
) -> None:
    reply = answered_too_late(journal)
    end_round(journal, 1)  # and what no record names is removed
    kept = answer("a", kind=Outcome.LATE, blob=reply.blob)
    assert journal.phases.take_in((), [late("a", kept=kept)])[1] == [Outcome.LATE]
    (waiting,) = journal.phases.waiting_late()
    parameters = journal.reply_parameters(waiting.contribution)
    assert parameters is not None
    assert [bytes(t) for t in parameters.tensors] == model(77).tensors


def test_what_is_late_by_a_moment_and_dropped_leaves_no_file(journal: Journal) -> None:
    reply = answered_too_late(journal)
    assert reply.blob is not None
    journal.release_reply(reply.task_id, reply.blob)
    assert journal.phases.take_in((), [late("a")])[1] == [Outcome.LATE]
    end_round(journal, 1)
    assert names(journal.folder / "replies") == set()
