"""Partial sums: entered with all their answers or not at all, kept and let go with their phase."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest

from flmq.journal import Fenced, Journal, KeepPolicy, RecordedSum
from flmq.journal.opening import DATABASE
from flmq.journal.schema import FORMAT
from flmq.round import Outcome
from tests.journal.runs import (
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

ORDER = "order-of-eu"


def spooled(journal: Journal) -> RecordedSum:
    """A sum whose file is the journal's."""
    path, blob = upload(journal, model(77))
    journal.adopt_reply(ORDER, path, blob)
    return RecordedSum(ORDER, blob, 1234)


def test_a_sum_is_read_back_with_its_answers_in_their_order(journal: Journal) -> None:
    opened = replace(plan(["a", "b", "c"]), orders={"eu": ("eu", "eu-west")})
    journal.phases.open(fit(1), opened)
    journal.phases.contribute(fit(1), answer("c"))
    taken = spooled(journal)
    failed = answer("b", order_id=ORDER, kind=Outcome.FAILED, reason="no")
    both = [(fit(1), answer("a", order_id=ORDER)), (fit(1), failed)]
    done, _ = journal.phases.take_in(both, (), [(fit(1), taken)])
    assert done == [Outcome.ACCEPTED, Outcome.FAILED]
    journal = reopened(journal)  # sweeps, and leaves the file that a record names
    record = journal.phases.find(fit(1))
    assert record is not None
    assert record.sums == (taken,)
    assert record.plan.orders == {"eu": ("eu", "eu-west")}
    assert [(c.client_id, c.order_id) for c in record.contributions] == [
        ("c", ""), ("a", ORDER), ("b", ORDER)
    ]  # fmt: skip
    assert len(names(journal.folder / "replies")) == 1


def test_a_sum_is_entered_with_its_answers_or_not_at_all(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a", "b"]))
    taken = spooled(journal)
    pairs = [(fit(1), answer("a", order_id=ORDER)), (fit(9), answer("b", order_id=ORDER))]
    with pytest.raises(RuntimeError, match="round 9, fit was not opened"):
        journal.phases.take_in(pairs, (), [(fit(1), taken)])
    record = journal.phases.find(fit(1))
    assert record is not None
    assert (record.sums, record.contributions) == ((), ())


def test_none_counts_in_a_closed_phase_and_none_of_a_fenced_server(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a"]))
    taken = spooled(journal)
    other = Journal.open(journal.folder)
    other.take_charge()
    with pytest.raises(Fenced):
        journal.phases.take_in((), (), [(fit(1), taken)])
    other.phases.close(fit(1), closing(silent=["a"]))
    with pytest.raises(RuntimeError, match="no partial sum counts in it any more"):
        other.phases.take_in((), (), [(fit(1), taken)])
    other.close()


@pytest.mark.parametrize("kept", ["round", "all"])
def test_a_sum_goes_with_the_replies_of_its_round(journal: Journal, kept: str) -> None:
    journal.keep(KeepPolicy(replies=kept))
    journal.phases.open(fit(1), plan(["a"]))
    pair = (fit(1), answer("a", order_id=ORDER))
    journal.phases.take_in([pair], (), [(fit(1), spooled(journal))])
    journal.phases.close(fit(1), closing("a"))
    end_round(journal, 1)
    assert len(names(journal.folder / "replies")) == (kept == "all")
    with sqlite3.connect(journal.folder / DATABASE) as database:
        assert database.execute("SELECT count(*) FROM sums").fetchone() == (kept == "all",)
    database.close()


def test_a_journal_from_before_there_were_sums_is_brought_up(journal: Journal) -> None:
    play_round(journal, 1)
    before, folder = told(journal, older=True), Path(journal.folder)
    journal.close()
    database = sqlite3.connect(folder / DATABASE)
    without_sums(database)
    database.execute("PRAGMA user_version=3")
    database.commit()
    database.close()
    journal = Journal.open(folder)
    journal.take_charge()
    assert told(journal, older=True) == before
    journal.phases.open(fit(2), plan(["a"], 2))
    pair = (fit(2), answer("a", 2, order_id=ORDER))
    journal.phases.take_in([pair], (), [(fit(2), spooled(journal))])
    journal.close()
    database = sqlite3.connect(folder / DATABASE)
    assert database.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    database.close()
