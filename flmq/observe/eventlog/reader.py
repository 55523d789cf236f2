"""Read a run's event log, while its server writes or after; nothing is ever written to it."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flmq.common.jsonvalues import from_json
from flmq.observe.eventlog.schema import APPLICATION_ID, FILE, FORMAT

__all__ = ["EventLogReader", "Happened", "ServerInCharge"]

_PATIENCE = 2.0


@dataclass(frozen=True, slots=True)
class ServerInCharge:
    """A server that took charge of the run."""

    epoch: int
    host: str
    pid: int
    version: str
    broker: str
    strategy: str
    num_rounds: int
    from_unix_ms: int
    to_unix_ms: int | None
    """None: it runs, or was killed."""
    how: str
    """"begun", "resume" or "takeover"."""
    ended: str
    """"finished", "stopped", "failed", or empty."""


@dataclass(frozen=True, slots=True)
class Happened:
    """An entry of the log."""

    id: int
    at_unix_ms: int
    kind: str
    word: str
    who: str
    server_round: int | None
    text: str
    numbers: dict[str, Any]


class EventLogReader:
    """The event log of the run in a folder. Thread-safe.

    A log that is missing or cannot be read is empty, and `problem` says why.
    """

    def __init__(self, folder: Path) -> None:
        """Read the log below ``folder``."""
        self._path = folder / FILE
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._file: tuple[int, int] | None = None
        self.problem = ""

    def servers(self) -> list[ServerInCharge]:
        """Return the servers that were in charge, the first one first."""
        return [ServerInCharge(*row) for row in self._rows("SELECT * FROM servers ORDER BY epoch")]

    def last_id(self) -> int:
        """Return the id of the last entry; 0 if there is none."""
        rows = self._rows("SELECT coalesce(max(id), 0) FROM entries")
        return int(rows[0][0]) if rows else 0

    def presence(self, client_id: str | None = None, most: int = 5000) -> list[Happened]:
        """Return the last ``most`` changes of a client's presence, or of all clients', in order."""
        if client_id is None:
            return self._last("kind = 'presence'", (), most)
        return self._last("kind = 'presence' AND who = ?", (client_id,), most)

    def latest_presence(self) -> list[Happened]:
        """Return the last change of each client's presence."""
        return self._happened(
            "id IN (SELECT max(id) FROM entries WHERE kind = 'presence' GROUP BY who) ORDER BY who",
            (),
        )

    def of_kinds(self, *kinds: str, since: int = 0, most: int = 5000) -> list[Happened]:
        """Return the last ``most`` entries of ``kinds`` after the id ``since``, in order."""
        which = f"kind IN ({', '.join('?' * len(kinds))}) AND id > ?"
        return self._last(which, (*kinds, since), most)

    def log(self, *, before: int | None, search: str, most: int) -> list[Happened]:
        """Return the last ``most`` log lines before the id ``before``, that contain ``search``."""
        pattern = "%" + search.replace("!", "!!").replace("%", "!%").replace("_", "!_") + "%"
        which = "kind = 'log' AND id < ? AND (? = '' OR text LIKE ? ESCAPE '!')"
        return self._last(which, (2**62 if before is None else before, search, pattern), most)

    def left_out(self) -> dict[str, int]:
        """Return how many entries of each kind were left out."""
        return dict(self._rows("SELECT kind, count FROM left_out ORDER BY kind"))

    def close(self) -> None:
        """Close the file. It is opened again when it is read again."""
        with self._lock:
            self._disconnect()

    def _last(self, which: str, values: tuple[Any, ...], most: int) -> list[Happened]:
        return self._happened(f"{which} ORDER BY id DESC LIMIT ?", (*values, most))[::-1]

    def _happened(self, which: str, values: tuple[Any, ...]) -> list[Happened]:
        rows = self._rows(
            "SELECT id, at_unix_ms, kind, word, who, server_round, text, numbers"  # noqa: S608
            f" FROM entries WHERE {which}",
            values,
        )
        return [_happened(*row) for row in rows]

    def _rows(self, sql: str, values: tuple[Any, ...] = ()) -> list[Any]:
        with self._lock:
            try:
                with self._connected() as connection:
                    return [] if connection is None else connection.execute(sql, values).fetchall()
            except (OSError, sqlite3.Error, ValueError) as error:
                self.problem = f"the event log {self._path} cannot be read: {error}"
                self._disconnect()
                return []

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection | None]:
        """Yield a connection; the file may have been deleted, or begun anew, meanwhile."""
        try:
            status = self._path.stat()
        except FileNotFoundError:
            self._disconnect()
            yield None
            return
        file = status.st_dev, status.st_ino
        if file != self._file:
            self._disconnect()
            self._connection, self._file = _opened(self._path), file
        self.problem = ""
        yield self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = self._file = None


def _happened(
    id_: int,
    at: int,
    kind: str,
    word: str,
    who: str,
    server_round: int | None,
    text: str,
    numbers: str,
) -> Happened:
    return Happened(id_, at, kind, word, who, server_round, text, _numbers(numbers))


def _numbers(text: str) -> dict[str, Any]:
    """Return the numbers of an entry; none of one that was damaged."""
    try:
        values = from_json(json.loads(text)) if text else {}
    except (TypeError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _opened(path: Path) -> sqlite3.Connection:
    log = path.with_name(f"{path.name}-wal")
    mode = "mode=ro"
    if not os.access(path.parent, os.W_OK) and not log.exists():
        mode = "immutable=1"  # as a journal is opened: SQLite can make no shared memory here
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=_PATIENCE, check_same_thread=False
    )
    try:
        connection.execute("PRAGMA trusted_schema=OFF")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION_ID or version > FORMAT:
            raise ValueError("it is none of this flmq's")
        return connection
    except BaseException:
        connection.close()
        raise
