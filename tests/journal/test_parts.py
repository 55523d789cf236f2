"""What each client did in a phase stays for ever, is small, and is read quickly."""

from __future__ import annotations

import os
import sqlite3
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flmq.common.phase import Phase
from flmq.common.times import TaskTimes, WorkerTimes
from flmq.common.typing import FitRes, Scalar
from flmq.journal import (
    ClosedPhase,
    Journal,
    JournalDamaged,
    JournalNotWritable,
    JournalReader,
    LateEntry,
    Part,
    PhaseKey,
    open_to_read,
)
from flmq.journal.opening import DATABASE
from flmq.journal.parts import decode_parts, encode_parts
from flmq.round import Outcome, TaskOutcome
from flmq.wire import encode
from tests.journal.runs import answer, closing, end_round, fit, plan, without_parts, without_sums
from tests.wire.cases import NOTHING, OK, reply

NOW = 1_800_000_000_000


def course(number: int = 0) -> TaskTimes:
    """The course of a task whose client's clock is an hour ahead."""
    at = NOW + 17 * number
    there = at + 3_600_000
    worker = WorkerTimes(there + 9, there + 20, there + 35, there + 900, there + 905, 1, 0)
    return TaskTimes(at, at + 950, at + 960, worker, 3_600_000.5, 4.25)


def part(ask: str, number: int = 0, **changes: Any) -> Part:
    metrics: dict[str, Scalar] = {"loss": 1 / (3 + number), "accuracy": 0.5 + 1 / (7 + number)}
    made = Part(
        ask,
        Outcome.ACCEPTED,
        seconds=round(1.123456 + number / 7, 6),
        num_examples=100 + number,
        bytes=2_600_000 + number,
        metrics=metrics,
        times=course(number),
    )
    return replace(made, **changes)


ODD = [
    part("a"),
    part("b#1", metrics={}, times=None),
    Part("c", Outcome.SILENT, "deadline", times=TaskTimes(NOW + 3)),
    Part("d", Outcome.FAILED, "ValueError: no", "Traceback\nValueError: no", 0.25, bytes=99),
    part("e", metrics={"nan": float("inf"), "raw": b"\x00\xff", "ok": True, "\udcff": "\udcff"}),
    part("f", times=TaskTimes(NOW, NOW + 5, None, WorkerTimes(note="training_ended is no time"))),
    Part("g", Outcome.UNROUTABLE, "no queue on the broker"),
    part("h", late_by=2.5, metrics_left_out=3),
]


def whose(parts: list[Part]) -> list[tuple[str, Outcome | None, str]]:
    return [(each.ask, each.outcome, each.reason) for each in parts]


def test_every_part_comes_back_as_it_was() -> None:
    assert list(decode_parts(encode_parts(ODD), whose(ODD))) == ODD
    assert decode_parts(encode_parts([]), []) == ()


def test_a_clients_metrics_are_bounded_and_what_is_left_out_is_counted() -> None:
    many = part("a", metrics={f"{at}-" + "x" * 1000: "y" * 10**5 for at in range(1000)})
    data = encode_parts([many])
    assert len(data) < 4000
    (read,) = decode_parts(data, whose([many]))
    assert (len(read.metrics), read.metrics_left_out) == (64, 936)
    assert max(map(len, read.metrics)) == 200


@pytest.mark.parametrize("data", [b"", b"x" * 40, encode_parts(ODD)[:-9], encode_parts(ODD[:-1])])
def test_what_are_no_such_parts_is_said_so(data: bytes) -> None:
    with pytest.raises((ValueError, KeyError, TypeError)):
        decode_parts(data, whose(ODD))


def test_a_part_takes_less_than_a_hundred_bytes() -> None:
    parts = [part(f"client-{number:04d}", number * number % 997) for number in range(1000)]
    assert len(encode_parts(parts)) < 100 * len(parts)


def closed_as(parts: list[Part]) -> ClosedPhase:
    outcomes = tuple(TaskOutcome(p.ask, p.outcome, p.reason) for p in parts if p.outcome)
    accepted = tuple(p.ask for p in parts if p.outcome is Outcome.ACCEPTED)
    return ClosedPhase("all answered", accepted, outcomes, 1.5, 100, 200)


def played(journal: Journal, server_round: int, parts: list[Part]) -> None:
    """Play a round, in which clients did this."""
    journal.phases.open(fit(server_round), plan([each.ask for each in parts], server_round))
    closed = closed_as(parts)
    journal.phases.contribute_many(
        [(fit(server_round), answer(ask, server_round)) for ask in closed.accepted]
    )
    journal.phases.close(fit(server_round), closed, parts, {"split": {"training": 0.5}})
    end_round(journal, server_round)


def reads(folder: Path) -> list[JournalReader]:
    """The run, read by each of those who read."""
    return [Journal.open(folder, create=False), open_to_read(folder)]


def test_parts_outlive_the_replies_of_their_round(journal: Journal) -> None:
    played(journal, 1, ODD)
    journal.close()
    for reader in reads(journal.folder):
        (row,) = reader.rounds(parts=True)
        (phase,) = row.phases
        assert list(phase.parts) == ODD
        assert phase.counts == {
            Outcome.ACCEPTED: 5,
            Outcome.SILENT: 1,
            Outcome.FAILED: 1,
            Outcome.UNROUTABLE: 1,
        }
        assert (phase.timeout, phase.about) == (60.0, {"split": {"training": 0.5}})
        (head,) = reader.rounds(outcomes=False)
        assert head.phases == (replace(phase, parts=(), outcomes=()),)
        reader.close()


def test_rounds_are_read_from_one_to_another(journal: Journal) -> None:
    for number in range(1, 6):
        played(journal, number, [part("a", number)])
    rows = journal.rounds(2, 4, parts=True)
    assert [row.server_round for row in rows] == [2, 3, 4]
    assert [row.phases[0].parts for row in rows] == [(part("a", n),) for n in (2, 3, 4)]
    assert [row.server_round for row in journal.rounds(4)] == [4, 5]


def test_while_a_phase_is_open_what_came_so_far_has_its_times(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a", "b"]))
    (row,) = journal.rounds()
    at, worker = row.phases[0].opened_unix_ms, course().worker
    times = replace(course(), received_ms=at + 950)
    res = FitRes(OK, NOTHING, 120, {"loss": 0.5})
    encoded = encode(replace(reply(res), times=worker))
    bare = replace(times, worker=None)
    journal.phases.contribute(fit(1), answer("b", reply=encoded, size=99, times=bare))
    for reader in [journal, open_to_read(journal.folder)]:
        (row,) = reader.rounds(parts=True)
        assert row.phases[0].parts == (
            Part("a", None),
            Part("b", Outcome.ACCEPTED, "", "", 0.95, 120, 99, {"loss": 0.5}, 0, times),
        )
        assert row.phases[0].closed_unix_ms is None


def test_late_replies_keep_their_part(journal: Journal) -> None:
    journal.phases.open(fit(1), plan(["a"]))
    journal.phases.close(fit(1), closing(silent=["a"]))
    late = part("a", outcome=Outcome.LATE, late_by=2.0, reason="")
    again = replace(late, outcome=Outcome.DUPLICATE, late_by=3.0)
    journal.phases.take_in((), [LateEntry(fit(1), "a", Outcome.LATE, 2.0, part=late)])
    for _ in range(2):
        journal.phases.take_in((), [LateEntry(fit(1), "a", Outcome.DUPLICATE, 3.0, part=again)])
    (row,) = journal.rounds(parts=True)
    assert [each.part for each in row.phases[0].late] == [again, late]
    (row,) = journal.rounds()
    assert [each.part for each in row.phases[0].late] == [None, None]


def test_a_run_of_an_older_flmq_has_none_and_gets_them_from_then_on(journal: Journal) -> None:
    played(journal, 1, ODD)
    journal.close()
    with sqlite3.connect(journal.folder / DATABASE) as database:
        without_parts(database)
        database.execute("PRAGMA user_version=4")
    database.close()
    before = (journal.folder / DATABASE).read_bytes()
    reader = open_to_read(journal.folder)
    (row,) = reader.rounds(parts=True)
    assert (row.phases[0].parts, row.phases[0].counts[Outcome.ACCEPTED]) == ((), 5)
    assert [each.client_id for each in row.phases[0].outcomes] == [each.ask for each in ODD]
    (head,) = reader.rounds(outcomes=False)
    assert head.phases[0].counts == row.phases[0].counts
    reader.close()
    assert (journal.folder / DATABASE).read_bytes() == before
    again = Journal.open(journal.folder)
    again.take_charge()
    played(again, 2, ODD)
    assert [list(row.phases[0].parts) for row in again.rounds(parts=True)] == [[], ODD]


def test_a_run_of_the_first_format_is_read_without_a_change(journal: Journal) -> None:
    played(journal, 1, ODD)
    journal.close()
    with sqlite3.connect(journal.folder / DATABASE) as database:
        for column in ("note", "task_id", "reply", "blob", "size", "into_phase"):
            database.execute(f"ALTER TABLE late DROP COLUMN {column}")
        database.execute("ALTER TABLE phases DROP COLUMN closed_unix_ms")
        without_sums(database)
        database.execute("PRAGMA user_version=1")
    database.close()
    reader = open_to_read(journal.folder)
    (row,) = reader.rounds(parts=True)
    assert (row.loss, row.phases[0].closed_unix_ms) == (0.5, None)
    assert reader.identity == journal.identity
    reader.close()


def test_reading_writes_nothing_and_sees_what_a_server_writes(journal: Journal) -> None:
    played(journal, 1, ODD)
    reader = open_to_read(journal.folder)
    with pytest.raises(JournalNotWritable, match="readonly"), reader._db.reading() as tx:
        tx.execute("DELETE FROM phases")
    played(journal, 2, ODD)
    assert [row.server_round for row in reader.rounds()] == [1, 2]
    reader.close()


def test_a_run_in_a_folder_that_may_not_be_written_is_read(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    played(journal, 1, ODD)
    journal.close()
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    before = sorted(path.name for path in journal.folder.iterdir())
    reader = open_to_read(journal.folder)
    assert len(reader.rounds(parts=True)) == 1
    assert sorted(path.name for path in journal.folder.iterdir()) == before
    reader.close()


def test_a_missing_or_empty_journal_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(JournalDamaged, match="is missing"):
        open_to_read(tmp_path)
    (tmp_path / DATABASE).touch()
    with pytest.raises(JournalDamaged, match="is empty"):
        open_to_read(tmp_path)


@pytest.mark.parametrize("at", range(0, 400, 57))
def test_damaged_parts_are_noticed(journal: Journal, at: int) -> None:
    played(journal, 1, ODD)
    journal.close()
    with sqlite3.connect(journal.folder / DATABASE) as database:
        (stored,) = database.execute("SELECT parts FROM parts").fetchone()
        damaged = stored[:at] + bytes([stored[at] ^ 1]) + stored[at + 1 :]
        database.execute("UPDATE parts SET parts = ?", (damaged,))
    database.close()
    reader = open_to_read(journal.folder)
    assert len(reader.rounds()) == 1
    with pytest.raises(JournalDamaged):
        reader.rounds(parts=True)
    reader.close()


@pytest.mark.slow
def test_a_thousand_rounds_are_listed_in_a_moment(journal: Journal) -> None:
    parts = [part(f"client-{number:04d}", number) for number in range(100)]
    for number in range(1, 1001):
        played(journal, number, parts)
    key = PhaseKey(1001, Phase.FIT)
    many = [part(f"client-{number:04d}", number) for number in range(1000)]
    journal.phases.open(key, plan([each.ask for each in many], 1001))
    closed = closed_as(many)
    journal.phases.contribute_many([(key, answer(ask, 1001)) for ask in closed.accepted])
    journal.phases.close(key, closed, many)
    reader = open_to_read(journal.folder)
    before = time.process_time()
    assert len(reader.rounds(outcomes=False)) == 1001
    listed = time.process_time()
    (row,) = reader.rounds(1001, 1001, parts=True)
    assert len(row.phases[0].parts) == 1000
    assert listed - before < 0.3
    assert time.process_time() - listed < 0.1
    reader.close()
