"""A strategy's large arrays on disk: each by itself, written where it changed, and let go of."""

from __future__ import annotations

import resource
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flmq.common import Parameters
from flmq.journal import Journal, JournalDamaged, KeepPolicy
from flmq.journal.opening import DATABASE
from flmq.journal.schema import FORMAT
from flmq.journal.state import split_state
from tests.journal.runs import begun, closing, fit, model, names, plan, reopened, without_sums

SUMMARY: dict[str, Any] = {"loss": None, "metrics": {}, "seconds": 1.0}


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return begun(tmp_path / "job")


def blobs(journal: Journal) -> dict[str, int]:
    """When each file of a blob was written."""
    folder = journal.folder / "blobs"
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


def moments(m: float, v: float) -> dict[str, Any]:
    """As FedAdam's."""
    return {"t": 3, "m": [np.full(1000, m), np.ones(2)], "v": np.full(3000, v, np.float32)}


def checkpoint(journal: Journal, server_round: int, state: dict[str, Any]) -> None:
    journal.checkpoint(server_round, model(0), {}, state, SUMMARY)


def last_state(journal: Journal) -> dict[str, Any]:
    last = journal.last_checkpoint()
    assert last is not None
    return dict(last.state)


def same(got: Any, want: Any) -> bool:
    return repr(got) == repr(want) and split_state(got, None) == split_state(want, None)


def test_only_what_changed_is_written_and_the_old_one_goes(journal: Journal) -> None:
    checkpoint(journal, 1, moments(1, 2))
    before = blobs(journal)
    assert len(before) == 3  # the model, and two arrays; a small one is in the record
    checkpoint(journal, 2, moments(7, 2))
    after = blobs(journal)
    assert len(after.keys() - before.keys()) == len(before.keys() - after.keys()) == 1
    assert all(before[name] == after[name] for name in before.keys() & after.keys())
    assert same(last_state(reopened(journal)), moments(7, 2))


def test_a_plan_with_the_state_of_the_checkpoint_writes_nothing(journal: Journal) -> None:
    checkpoint(journal, 1, moments(1, 2))
    before = blobs(journal)
    journal.phases.open(fit(2), plan(["a"], 2, **moments(1, 2)))
    assert blobs(journal) == before
    record = reopened(journal).phases.find(fit(2))
    assert record is not None
    assert same(record.plan.state, moments(1, 2))


def test_arrays_stay_while_a_checkpoint_or_a_plan_names_them(journal: Journal) -> None:
    journal.keep(KeepPolicy(every=2))
    for number in range(1, 5):
        checkpoint(journal, number, moments(number, 0))
        # m of the last; of round 2; of round 4, which is the last in the end; v, the model
        assert len(blobs(journal)) == {1: 3, 2: 3, 3: 4, 4: 4}[number]
    journal.phases.open(fit(5), plan(["a"], 5, **moments(50, 60)))
    journal.phases.close(fit(5), closing())
    assert len(blobs(journal)) == 6
    checkpoint(journal, 5, moments(5, 0))
    assert len(blobs(journal)) == 5
    assert same(last_state(reopened(journal)), moments(5, 0))


def test_the_same_array_twice_is_one_file(journal: Journal) -> None:
    twice = {"a": np.ones(1000), "b": [np.ones(1000), np.ones((10, 100))]}
    checkpoint(journal, 1, twice)
    assert len(blobs(journal)) == 2
    assert same(last_state(reopened(journal)), twice)


def test_more_arrays_than_files_may_be_open(journal: Journal) -> None:
    state = {"variates": [np.full(600, number, np.float64) for number in range(300)]}
    checkpoint(journal, 1, state)
    journal = reopened(journal)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, soft), hard))
    try:
        assert same(last_state(journal), state)
        checkpoint(journal, 2, {"variates": [each + 1 for each in state["variates"]]})
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(names(journal.folder / "blobs")) == 301


def test_an_array_that_is_damaged_is_named(journal: Journal) -> None:
    checkpoint(journal, 1, moments(1, 2))
    (path,) = [p for p in (journal.folder / "blobs").iterdir() if p.stat().st_size == 8000]
    path.write_bytes(b"\0" * 8000)
    with pytest.raises(JournalDamaged, match=path.name):
        reopened(journal).last_checkpoint()


def test_a_journal_whose_states_have_one_blob_each_is_read_and_gone_on_with(
    journal: Journal,
) -> None:
    """As flmq wrote them in format 2."""
    state = moments(1, 2)
    document, arrays = split_state(state, 4096)
    one = Parameters([bytes(array) for array in arrays], "flmq.state")
    digest = journal.put_parameters(one).digest
    checkpoint(journal, 1, {})
    journal.phases.open(fit(2), plan(["a"], 2, digest))  # has the journal know the blob
    journal.close()
    database = sqlite3.connect(journal.folder / DATABASE)
    sealed = journal._seal.close(document)
    database.execute("UPDATE checkpoints SET state = ?, state_digest = ?", (sealed, digest))
    database.execute("UPDATE phases SET state = ?, state_digest = ?", (sealed, digest))
    database.execute("UPDATE asks SET digest = NULL")
    without_sums(database)
    database.execute("PRAGMA user_version=2")
    database.commit()
    database.close()
    journal = reopened(journal)
    assert same(last_state(journal), state)
    record = journal.phases.find(fit(2))
    assert record is not None
    assert same(record.plan.state, state)
    journal.phases.close(fit(2), closing())
    checkpoint(journal, 2, moments(1, 3))
    assert f"{digest}.blob" not in names(journal.folder / "blobs")
    assert same(last_state(reopened(journal)), moments(1, 3))
    with sqlite3.connect(journal.folder / DATABASE) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (FORMAT,)
    database.close()
