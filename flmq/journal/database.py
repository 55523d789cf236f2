"""The SQLite database: one connection, one lock, whole transactions, errors that say what to do.

WAL mode with ``synchronous=FULL``: a transaction is on disk when its block is left, and a crash at
any moment leaves all of it or nothing (SQLite, "Write-Ahead Logging" and "PRAGMA synchronous").
"""

from __future__ import annotations

import contextlib
import os
import re
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from flmq.common.errors import FlmqError
from flmq.journal.errors import JournalDamaged, JournalGone, JournalNotWritable

__all__ = ["Database", "connect"]

_BUSY_SECONDS = 20.0
_WAL_BYTES = 64 << 20
_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_LACKS = re.compile("no such (table|column|index)|has no column named")
"""SQLite's messages on a missing table or column, for which it has no error code."""
_TROUBLE = {
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
}


def connect(path: Path, *, read_only: bool = False) -> sqlite3.Connection:
    """Open the existing database at ``path`` for use by any thread."""
    mode = "mode=ro" if read_only else "mode=rw"
    if read_only and not os.access(path.parent, os.W_OK) and not _log_of(path).exists():
        # SQLite needs a shared memory map beside a database with a log, which it cannot make here;
        # where there is no log, nobody writes.
        mode = "immutable=1"
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}",
        uri=True,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    for pragma in (
        "synchronous=FULL",
        "foreign_keys=ON",
        "trusted_schema=OFF",
        "secure_delete=OFF",  # some systems' SQLite would overwrite all deleted data with zeros
        f"journal_size_limit={_WAL_BYTES}",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


class Database:
    """Transactions on one connection, one at a time. Thread-safe."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        """Open ``path``; ``read_only``: nothing is ever written to it.

        Raises:
            JournalDamaged: not a database.
            JournalNotWritable: it cannot be opened.
        """
        self.path = path
        self._lock = threading.RLock()
        self._closed = False
        with self._translated():
            self._connection = connect(path, read_only=read_only)
        self._file = _file_at(path)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """Run the block on one consistent snapshot; errors of decoding in it mean damage.

        Raises:
            JournalDamaged: the block cannot make sense of what it reads.
        """
        try:
            with self._transaction("BEGIN") as connection:
                yield connection
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            if isinstance(error, FlmqError):
                raise
            raise JournalDamaged(
                self.path, f"is damaged: a record in it cannot be read ({error!r})"
            ) from error

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction: durable afterwards; rolled back if the block raises.

        Raises:
            JournalGone: the file was deleted, moved or replaced.
            JournalNotWritable: it cannot be written; nothing has changed.
        """
        if self.gone:  # SQLite would go on writing to the unlinked file
            raise JournalGone(self.path.parent)
        with self._transaction("BEGIN IMMEDIATE") as connection:
            yield connection

    @property
    def gone(self) -> bool:
        """Whether the file at our path is no longer the one that we opened."""
        return _file_at(self.path) != self._file

    def fold(self) -> None:
        """Checkpoint the log into the database file, as far as readers allow."""
        with self._lock, self._translated():
            # A reader that was suspended midway must not block the run.
            self._connection.execute("PRAGMA busy_timeout=0")
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            self._connection.execute(f"PRAGMA busy_timeout={_BUSY_SECONDS * 1000:.0f}")

    def close(self) -> None:
        """Close the connection. Idempotent."""
        with self._lock:
            self._closed = True
            self._connection.close()

    @contextlib.contextmanager
    def _transaction(self, begin: str) -> Iterator[sqlite3.Connection]:
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the journal at {self.path} was closed")
            with self._translated():
                self._connection.execute(begin)
                try:
                    yield self._connection
                    self._connection.execute("COMMIT")
                except BaseException:
                    self._roll_back()
                    raise

    def _roll_back(self) -> None:
        # On some errors, SQLite rolls back by itself.
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            # The primary code is in the lowest byte (SQLite, "Result and Error Codes").
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
            if code in _DAMAGE:
                raise JournalDamaged(self.path, f"is damaged: {error}") from error
            if code in _TROUBLE:
                raise JournalNotWritable(self.path, str(error)) from error
            if code == sqlite3.SQLITE_ERROR and _LACKS.search(str(error)):
                raise JournalDamaged(self.path, f"is damaged: {error}") from error
            if code == sqlite3.SQLITE_BUSY:
                raise JournalNotWritable(self.path, _busy()) from error
            raise


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def _file_at(path: Path) -> tuple[int, int] | None:
    """Return device and inode of the file at ``path``; None if there is none."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _busy() -> str:
    return (
        f"another process has held it for more than {_BUSY_SECONDS:g} s, in the middle of writing: "
        "if it is a stopped server of this job, kill that one"
    )
