"""Read a run's folder without writing into it: while its server runs, after it, or of an older one.

No lock that writes is taken and nothing is migrated, so that it can disturb nothing. What an older
format lacks is read as empty.
"""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path

from flmq.journal.database import Database
from flmq.journal.errors import JournalDamaged
from flmq.journal.opening import DATABASE, check_application
from flmq.journal.reader import JournalReader
from flmq.journal.schema import APPLICATION_ID, FORMAT, SCHEMA

__all__ = ["open_to_read"]


def open_to_read(folder: Path) -> JournalReader:
    """Open the run in ``folder`` to be read only; the caller closes it.

    Raises:
        JournalDamaged: there is none, or it is damaged.
        NewerJournal: a newer flmq wrote it.
        JournalNotWritable: it cannot be opened.
    """
    path = folder / DATABASE
    if not path.exists():
        raise JournalDamaged(path, "is missing")
    if path.stat().st_size == 0:
        raise JournalDamaged(path, "is empty")
    database = Database(path, read_only=True)
    try:
        format_ = check_application(database, APPLICATION_ID, FORMAT)
        if format_ < FORMAT:
            _read_as_today(database)
        return JournalReader(folder, database, heal=False)
    except BaseException:
        database.close()
        raise


def _read_as_today(database: Database) -> None:
    """Have what an older format lacks read as empty, by views that only this connection sees."""
    with contextlib.closing(sqlite3.connect(":memory:")) as new:
        new.executescript(SCHEMA)
        tables = new.execute(
            "SELECT name, sql FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'"
        ).fetchall()
        columns = {name: _columns(new, name) for name, _ in tables}
    with database.reading() as tx:
        for name, sql in tables:
            found = _columns(tx, name)
            if not found:
                empty = sql.replace("CREATE TABLE", "CREATE TEMP TABLE", 1)
                tx.execute(empty.replace("AUTOINCREMENT", ""))
                continue
            missing = {each: columns[name][each] for each in columns[name].keys() - found.keys()}
            if missing:
                added = ", ".join(f'{empty} AS "{each}"' for each, empty in missing.items())
                view = f'SELECT *, {added} FROM main."{name}"'  # noqa: S608  names of our own
                tx.execute(f'CREATE TEMP VIEW "{name}" AS {view}')


def _columns(connection: sqlite3.Connection, table: str) -> dict[str, str]:
    """Return the columns of a table, each with its default as SQL."""
    rows = connection.execute("SELECT name, dflt_value FROM pragma_table_info(?)", (table,))
    return {name: default or "NULL" for name, default in rows}
