"""Open a run's folder: create a new one atomically, and verify an existing one.

The database is created under another name, with all its tables, and then linked to its own: so a
database that is empty or lacks a table was not left by a crash, but is damaged.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from flmq.common.files import fsync_file, fsync_folder, temporary_of
from flmq.journal.blobs import BLOBS, REPLIES
from flmq.journal.database import Database
from flmq.journal.errors import JournalDamaged, JournalNotWritable, NewerJournal
from flmq.journal.files import make_folder, writing
from flmq.journal.marker import MARKER, read_marker
from flmq.journal.schema import APPLICATION_ID, FORMAT, SCHEMA, UPGRADES

__all__ = [
    "DATABASE",
    "check_application",
    "check_database",
    "create_database",
    "open_database",
]

DATABASE = "journal.db"


def open_database(folder: Path, *, create: bool) -> Database:
    """Open the database of the run in ``folder``; create it if it does not exist.

    Raises:
        JournalDamaged: it is damaged; or there is none and ``create`` is not set.
        NewerJournal: a newer flmq wrote it.
        JournalNotWritable: it cannot be created or opened.
    """
    marked = read_marker(folder)
    path = folder / DATABASE
    if not path.exists():
        beside = f"{MARKER} stands beside it" if marked else _leftover(folder)
        if beside:
            raise JournalDamaged(path, f"is missing, though {beside}")
        if not create:
            raise JournalDamaged(path, "is missing")
        create_database(path, SCHEMA, APPLICATION_ID, FORMAT)
    if path.stat().st_size == 0:
        # SQLite would treat it as a new database, and remove its log.
        raise JournalDamaged(path, "is empty")
    database = Database(path)
    try:
        _look_over(database)
        _bring_up(database)
        _look_for_columns(database)
    except BaseException:
        database.close()
        raise
    return database


def _leftover(folder: Path) -> str:
    """Return which parts of a run lie in ``folder`` beside the database; empty if none."""
    log = folder / f"{DATABASE}-wal"
    if log.exists() and log.stat().st_size:
        return f"its log {log.name} stands beside it"
    for name in (BLOBS, REPLIES):
        if (folder / name).is_dir() and any((folder / name).iterdir()):
            return f"{name}/ holds files"
    return ""


def create_database(path: Path, schema: str, application_id: int, format_: int) -> None:
    """Create a database with the tables of ``schema``, unless another process does so first.

    Raises:
        JournalNotWritable: it cannot be created.
    """
    make_folder(path.parent)
    temporary = temporary_of(path)
    with writing(path):
        try:
            _fill(temporary, schema, application_id, format_)
            fsync_file(temporary)
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(temporary)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{temporary}{suffix}").unlink(missing_ok=True)
        fsync_folder(path.parent)


def _fill(path: Path, schema: str, application_id: int, format_: int) -> None:
    path.touch(mode=0o600)  # it holds the job's secret; SQLite's log inherits the mode
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        connection.execute(f"PRAGMA application_id={application_id}")
        connection.execute(f"PRAGMA user_version={format_}")
        connection.executescript(f"BEGIN; {schema} COMMIT;")
        (mode,) = connection.execute("PRAGMA journal_mode=WAL").fetchone()
    except sqlite3.OperationalError as error:
        raise JournalNotWritable(path, str(error)) from error
    finally:
        connection.close()
    if mode != "wal":
        raise JournalNotWritable(
            path, "this file system has no shared memory maps, which SQLite's log needs"
        )


def _bring_up(database: Database) -> None:
    """Migrate a database of an earlier format to the current one; its records stay."""
    with database.reading() as tx:
        (found,) = tx.execute("PRAGMA user_version").fetchone()
    if found == FORMAT:
        return
    with database.writing() as tx:
        # Another process may have migrated it meanwhile.
        (found,) = tx.execute("PRAGMA user_version").fetchone()
        for earlier in range(found, FORMAT):
            for statement in filter(None, map(str.strip, UPGRADES[earlier].split(";"))):
                tx.execute(statement)
        tx.execute(f"PRAGMA user_version={FORMAT}")


def _look_for_columns(database: Database) -> None:
    """Check that all tables exist and have their columns; additional ones are fine."""
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        new.executescript(SCHEMA)
        wanted = _columns(new)
    with database.reading() as tx:
        found = _columns(tx)
    missing = sorted(wanted.keys() - found.keys()) or sorted(
        f"{table}.{column}" for table in wanted for column in wanted[table] - found[table]
    )
    if missing:
        raise JournalDamaged(database.path, f"is damaged: it lacks {', '.join(missing)}")


def _columns(connection: sqlite3.Connection) -> dict[str, set[str]]:
    """Return the column names of each table."""
    columns: dict[str, set[str]] = {}
    for table, column in connection.execute(
        "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
        "WHERE m.type = 'table'"
    ):
        columns.setdefault(table, set()).add(column)
    return columns


def _look_over(database: Database) -> None:
    check_database(database, APPLICATION_ID, FORMAT)
    with database.reading() as tx:
        tx.execute("SELECT 1 FROM run").fetchone()


def check_database(database: Database, application_id: int, supported: int) -> None:
    """Check that a database is one of ours, of a format up to ``supported``, and sound.

    Raises:
        JournalDamaged: it is not.
        NewerJournal: a newer flmq wrote it.
    """
    check_application(database, application_id, supported)
    with database.reading() as tx:
        (found,) = tx.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise JournalDamaged(database.path, f"is damaged: {' '.join(str(found).split())}")


def check_application(database: Database, application_id: int, supported: int) -> int:
    """Check that a database is one of ours, and return its format, which is up to ``supported``.

    Raises:
        JournalDamaged: it is not ours.
        NewerJournal: a newer flmq wrote it.
    """
    with database.reading() as tx:
        (application,) = tx.execute("PRAGMA application_id").fetchone()
        (format_,) = tx.execute("PRAGMA user_version").fetchone()
    if application != application_id:
        raise JournalDamaged(database.path, "is no journal of flmq")
    if format_ > supported:
        raise NewerJournal(database.path, format_, supported)
    return int(format_)
