"""Damaged folders: an earlier state that was once true, or an error that says what to do."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from flmq.common.errors import StoredDataError
from flmq.journal import Journal, JournalDamaged, NewerJournal
from flmq.journal.schema import FORMAT
from tests.journal.runs import (
    answer,
    begun,
    closing,
    end_round,
    fit,
    model,
    plan,
    play_round,
    told,
    upload,
)
from tests.processes import open_to_others

WAL = "journal.db-wal"


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[bytes]]:
    """A folder in the middle of round 3, its log full, and all that was ever true of it."""
    folder = tmp_path_factory.mktemp("run") / "job"
    journal = begun(folder)
    truths = [told(journal)]
    end_round(journal, 0)
    truths.append(told(journal))
    for number in (1, 2):
        play_round(journal, number)
        truths.append(told(journal))
    clients = [f"client-{i}" for i in range(5)]
    digest = journal.put_parameters(model(2)).digest
    steps: list[Callable[[], object]] = [
        lambda: journal.phases.open(fit(3), plan(clients, 3, digest, momentum=list(range(2000)))),
        *(
            lambda c=c: journal.phases.contribute(fit(3), answer(c, 3, reply=c.encode() * 3000))
            for c in clients
        ),
        lambda: journal.phases.tick(fit(3), 4.5),
        lambda: journal.phases.close(fit(3), closing(*clients)),
    ]
    for step in steps:
        step()
        truths.append(told(journal))
    copy = folder.with_name("copy")
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("*-shm"))
    journal.close()
    assert (copy / WAL).stat().st_size > 100_000
    return copy, truths


def outcome(folder: Path) -> bytes | StoredDataError:
    """What is left: the state, or the refusal."""
    try:
        journal = Journal.open(folder)
        try:
            assert journal.identity is not None, "a run was taken for one that has not begun"
            return told(journal)
        finally:
            journal.close()
    except StoredDataError as error:
        return error


def damaged(source: Path, target: Path, name: str, change: Callable[[bytes], bytes]) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    path = target / name
    path.write_bytes(change(path.read_bytes()))
    return target


def points(size: int, page: int, offset: int) -> list[int]:
    """Where to cut: at each page's bounds and beside them, and at some places more."""
    near = {b + d for b in range(offset, size, page) for d in (-1, 0, 24)}
    return sorted(p for p in near | set(range(0, size, max(1, size // 37))) if 0 <= p < size)


def test_undamaged_it_is_what_it_was(history: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    source, truths = history
    assert outcome(damaged(source, tmp_path / "x", WAL, bytes)) == truths[-1]


def test_a_log_cut_anywhere_is_an_earlier_state(
    history: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    source, truths = history
    seen = set()
    for cut in points((source / WAL).stat().st_size, 4096 + 24, 32):
        found = outcome(damaged(source, tmp_path / "x", WAL, lambda data, cut=cut: data[:cut]))  # type: ignore[misc]
        assert isinstance(found, bytes), f"cut at {cut}: {found}"
        # Never before the last checkpoint, which is in the database file.
        assert found in truths[3:], f"cut at {cut}: a state that never was"
        seen.add(truths.index(found))
    assert len(seen) > 5  # the cuts did reach many states


def test_a_log_with_a_wrong_byte_anywhere_is_an_earlier_state(
    history: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    source, truths = history
    for at in range(0, (source / WAL).stat().st_size, 5003):
        change = lambda d, at=at: d[:at] + bytes([d[at] ^ 0x40]) + d[at + 1 :]  # noqa: E731
        assert outcome(damaged(source, tmp_path / "x", WAL, change)) in truths[3:], f"at {at}"


@pytest.mark.parametrize("with_log", [True, False])
def test_a_database_cut_anywhere_is_refused_or_whole(
    history: tuple[Path, list[bytes]], tmp_path: Path, with_log: bool
) -> None:
    source, truths = history
    refused = 0
    for cut in points((source / "journal.db").stat().st_size, 4096, 0):
        folder = damaged(source, tmp_path / "x", "journal.db", lambda data, cut=cut: data[:cut])  # type: ignore[misc]
        if not with_log:
            (folder / WAL).unlink()
        found = outcome(folder)
        if isinstance(found, bytes):
            assert found == truths[-1 if with_log else 3], f"cut at {cut}: a state that never was"
        else:
            assert "Nothing was changed. Put the run's folder back" in str(found), cut
            refused += 1
    assert refused > 50


def test_pages_of_zeros_are_noticed(history: tuple[Path, list[bytes]], tmp_path: Path) -> None:
    """What some file systems leave of a page that was not written before power went."""
    source, truths = history
    for page in range((source / "journal.db").stat().st_size // 4096):
        at = page * 4096
        folder = damaged(
            source,
            tmp_path / "x",
            "journal.db",
            lambda d, at=at: d[:at] + bytes(4096) + d[at + 4096 :],  # type: ignore[misc]
        )
        found = outcome(folder)
        # Free pages, and those of which the log has a later copy, do not matter.
        assert isinstance(found, StoredDataError) or found == truths[-1], f"page {page}"


@pytest.mark.parametrize("beside", ["run.json", "blob", "reply", "log"])
def test_a_missing_database_is_not_a_new_run(tmp_path: Path, beside: str) -> None:
    folder = tmp_path / "job"
    journal = begun(folder)
    play_round(journal, 1)
    left = {"run.json": "run.json", "blob": "blobs", "reply": "replies", "log": WAL}[beside]
    (journal.folder / "replies" / "some").write_bytes(b"x")
    journal.close()
    (folder / "journal.db").unlink()
    (folder / WAL).write_bytes(b"log")
    for path in list(folder.iterdir()):
        if path.name != left:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(JournalDamaged, match=r"journal\.db: is missing, though .*Put the run's"):
        Journal.open(folder)


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "is empty"),
        (b"garbage", "is damaged: file is not a database"),
        (bytes(8192), "is damaged|is no journal"),
    ],
)
def test_what_is_no_database_is_refused(tmp_path: Path, content: bytes, what: str) -> None:
    folder = tmp_path / "job"
    begun(folder).close()
    (folder / "journal.db").write_bytes(content)
    with pytest.raises(JournalDamaged, match=what):
        Journal.open(folder)
    (folder / "run.json").unlink()
    with pytest.raises(JournalDamaged, match=what):
        Journal.open(folder)


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "journal.db")
    connection.execute("CREATE TABLE run (id)")
    connection.close()
    with pytest.raises(JournalDamaged, match="is no journal of flmq"):
        Journal.open(tmp_path)


def test_an_emptied_journal_beside_its_marker_is_refused(tmp_path: Path) -> None:
    Journal.open(tmp_path / "new").close()
    folder = tmp_path / "job"
    begun(folder).close()
    shutil.copy(tmp_path / "new" / "journal.db", folder / "journal.db")
    with pytest.raises(JournalDamaged, match=r"knows no run, though run\.json names run 0123"):
        Journal.open(folder)


def test_a_marker_of_another_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    begun(folder).close()
    marker = json.loads((folder / "run.json").read_text())
    (folder / "run.json").write_text(json.dumps(marker | {"run_id": "other"}))
    with pytest.raises(JournalDamaged, match=r"is of run 0123456789abcdef, and .* of run other"):
        Journal.open(folder)
    (folder / "run.json").write_text("{")
    with pytest.raises(JournalDamaged, match=r"run\.json: cannot be read"):
        Journal.open(folder)


def test_a_marker_that_was_lost_comes_back(tmp_path: Path) -> None:
    """A crash between the record of the run and its marker leaves that."""
    folder = tmp_path / "job"
    begun(folder).close()
    before = (folder / "run.json").read_bytes()
    (folder / "run.json").unlink()
    Journal.open(folder).close()
    assert (folder / "run.json").read_bytes() == before


def test_a_newer_run_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "job"
    begun(folder).close()
    marker = (folder / "run.json").read_text()
    connection = sqlite3.connect(folder / "journal.db")
    connection.execute(f"PRAGMA user_version={FORMAT + 1}")
    connection.close()
    said = rf"has format {FORMAT + 1}.*up to format {FORMAT}.*Install the newer"
    with pytest.raises(NewerJournal, match=said) as at:
        Journal.open(folder)
    assert (at.value.found, at.value.supported) == (FORMAT + 1, FORMAT)
    newer = json.loads(marker) | {"format": FORMAT + 2, "more": 1}
    (folder / "run.json").write_text(json.dumps(newer))
    with pytest.raises(NewerJournal, match=f"has format {FORMAT + 2}"):
        Journal.open(folder)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda d: d[:-1], "has 503 bytes, not 504"),
        (lambda d: b"", "has 0 bytes, not 504"),
        (lambda d: d[:200] + b"\xff" + d[201:], "has digest"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_damaged_model_is_refused(
    tmp_path: Path, change: Callable[[bytes], bytes] | None, what: str
) -> None:
    journal = begun(tmp_path / "job")
    digest = end_round(journal, 1)
    path = journal.folder / "blobs" / f"{digest}.blob"
    data = path.read_bytes()
    if change is None:
        path.unlink()
    else:
        path.write_bytes(change(data))
    what = what.replace("504", str(len(data))).replace("503", str(len(data) - 1))
    with pytest.raises(JournalDamaged, match=f"{digest}.blob: {what}"):
        journal.last_checkpoint()
    path.write_bytes(data)
    assert journal.last_checkpoint() is not None
    journal.close()


def test_a_damaged_reply_is_refused(tmp_path: Path) -> None:
    journal = begun(tmp_path / "job")
    journal.phases.open(fit(1), plan(["a"]))
    path, ref = upload(journal, model(5))
    where = journal.adopt_reply("a-1", path, ref)
    journal.phases.contribute(fit(1), answer("a", blob=ref))
    record = journal.phases.find(fit(1))
    assert record is not None
    assert journal.reply_parameters(record.contributions[0]) == model(5)
    where.write_bytes(where.read_bytes()[:-1])
    with pytest.raises(JournalDamaged, match=r"replies/a-1.*has \d+ bytes, not"):
        journal.reply_parameters(record.contributions[0])
    journal.close()


def changed(source: Path, target: Path, statement: str) -> Path:
    """A copy of the run whose database somebody changed by hand."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target)
    with contextlib.closing(sqlite3.connect(target / "journal.db")) as connection, connection:
        connection.execute(statement)
    return target


def tables(source: Path, target: Path) -> dict[str, list[str]]:
    """The journal's tables and their columns."""
    shutil.copytree(source, target)
    with contextlib.closing(sqlite3.connect(target / "journal.db")) as connection:
        names = connection.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'"
        ).fetchall()
    return {table: [column for t, column in names if t == table] for table, _ in names}


def test_a_table_or_column_that_is_gone_is_named_and_nothing_is_changed(
    history: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    source, _ = history
    found = tables(source, tmp_path / "whole")
    assert {"run", "blobs", "checkpoints", "phases", "asks", "contributions", "late"} <= set(found)
    for table, columns in found.items():
        error = outcome(changed(source, tmp_path / "x", f'DROP TABLE "{table}"'))
        assert isinstance(error, JournalDamaged), table
        assert re.search(f"is damaged: .*{table}", str(error))
        for column in columns:
            rename = f'ALTER TABLE "{table}" RENAME COLUMN "{column}" TO "other"'
            error = outcome(changed(source, tmp_path / "x", rename))
            assert isinstance(error, JournalDamaged), (table, column)
            assert f"it lacks {table}.{column}. Nothing was changed." in str(error)


def test_a_record_of_another_kind_is_damage(
    history: tuple[Path, list[bytes]], tmp_path: Path
) -> None:
    source, _ = history
    refused = 0
    for table, columns in tables(source, tmp_path / "whole").items():
        for column in columns:
            for value in ("NULL", "'x'", "-1"):
                try:
                    statement = f'UPDATE "{table}" SET "{column}" = {value}'
                    folder = changed(source, tmp_path / "x", statement)
                except sqlite3.IntegrityError:
                    continue
                found = outcome(folder)  # raises nothing else
                refused += isinstance(found, StoredDataError)
    assert refused > 40


@pytest.mark.parametrize("value", ["'garbage'", "x'00'", "1.5"])
def test_an_epoch_that_is_no_number_is_damage(
    history: tuple[Path, list[bytes]], tmp_path: Path, value: str
) -> None:
    source, _ = history
    folder = changed(source, tmp_path / "x", f"UPDATE run SET epoch = {value}")
    journal = Journal.open(folder)
    with pytest.raises(JournalDamaged, match=r"the run's epoch is .*, not a whole number"):
        journal.take_charge()
    journal.close()


def test_a_table_that_goes_under_a_running_server_is_damage(tmp_path: Path) -> None:
    journal = begun(tmp_path / "job")
    with contextlib.closing(sqlite3.connect(tmp_path / "job" / "journal.db")) as other, other:
        other.execute("DROP TABLE phases")
    with pytest.raises(JournalDamaged, match="no such table: phases"):
        journal.phases.open(fit(1), plan(["a"], 1, journal.put_parameters(model(1)).digest))
    journal.close()


def test_the_database_and_its_log_are_for_their_owner_alone(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        journal = begun(tmp_path / "runs" / "job")
        play_round(journal, 1)
        assert (tmp_path / "runs" / "job" / WAL).exists()
        assert (tmp_path / "runs" / "job" / "journal.db-shm").exists()
        assert open_to_others(tmp_path / "runs") == []
        journal.close()
    finally:
        os.umask(before)
