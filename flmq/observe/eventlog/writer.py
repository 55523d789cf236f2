"""Write a run's event log: an observer whose entries a thread of its own puts on disk.

Nothing waits for it: what it cannot keep, as the disk is full or too much happens at once, is left
out and counted. SQLite's WAL with ``synchronous=NORMAL`` needs no flush of the disk for a
transaction; a machine that loses power may lose the last entries, and a killed process none that
were written (SQLite, "PRAGMA synchronous").
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flmq import __version__
from flmq.common.logger import logger
from flmq.observe.eventlog.entries import KEPT, Entry, Kind, entry_of
from flmq.observe.eventlog.schema import APPLICATION_ID, FILE, FORMAT, SCHEMA
from flmq.observe.events import ClientsAwaited, RunEnded, RunEvent, RunStarted

__all__ = ["EventLog", "EventLogOptions"]

_BATCH = 1000
_MOST_WAITING = 50_000
"""Entries that wait to be written; more are left out."""
_MOST = 300_000
"""Entries that are kept, some 60 MB: of more, the oldest go, log lines and presence first."""
_TRIM_EVERY = 20_000
_PATIENCE = 5.0
"""Seconds that the end of a run waits for the last entries."""
_LONGEST_LINE = 8192

_Row = tuple[int, Entry]
"""Unix ms, and what happened then."""


@dataclass(frozen=True, slots=True)
class EventLogOptions:
    """What the event log has to know of its server."""

    epoch: int
    resumed: bool
    """Whether an earlier server of the job was in charge before."""
    waited: bool
    """Whether this server stood by, and waited for the earlier one's end."""


class EventLog(logging.Handler):
    """An observer, and a handler of flmq's log, that writes ``events.sqlite3`` in a run's folder.

    It ends with the event `RunEnded`, or by `close`. A process that was forked off writes nothing:
    the thread is not there.
    """

    wanted_events = (RunStarted, RunEnded, *KEPT)

    def __init__(
        self,
        folder: Path,
        options: EventLogOptions,
        clock: Callable[[], float] = time.time,
        *,
        most: int = _MOST,
    ) -> None:
        """Write below ``folder``; ``clock`` gives Unix seconds, ``most`` is how many are kept."""
        super().__init__(logging.INFO)
        self._path = folder / FILE
        self._options = options
        self._clock = clock
        self._most = most
        self._waiting: queue.Queue[_Row | RunStarted | RunEnded | None] = queue.Queue()
        self._left_out: Counter[str] = Counter()
        self._awaited: ClientsAwaited | None = None
        self._since_trim = _TRIM_EVERY
        self._failed = self._ended = False
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._write_all, name="flmq-events", daemon=True)
        self._thread.start()
        logger.addHandler(self)

    def __call__(self, event: RunEvent) -> None:
        """Keep ``event``, if it is of a kind that is kept."""
        if isinstance(event, RunStarted):
            self._waiting.put(event)
        elif isinstance(event, RunEnded):
            self._waiting.put(event)
            self.close()
        elif isinstance(event, ClientsAwaited) and event == self._awaited:
            return  # it is repeated every few seconds
        elif (entry := entry_of(event)) is not None:
            self._awaited = event if isinstance(event, ClientsAwaited) else self._awaited
            self._put(self._clock(), entry)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a line of the log."""
        if os.getpid() != self._pid:
            return
        try:
            text = record.getMessage()[:_LONGEST_LINE]
        except Exception:  # a wrong format is the caller's fault, which other handlers show
            return
        number = getattr(record, "server_round", None)
        client = getattr(record, "client_id", None) or ""
        entry = Entry(Kind.LOG, text, record.levelname.lower(), str(client), number)
        self._put(record.created, entry)

    def close(self) -> None:
        """Write what waits, and end. Idempotent."""
        if self._ended:
            return
        self._ended = True
        logger.removeHandler(self)
        self._waiting.put(None)
        self._thread.join(_PATIENCE)
        super().close()

    def _put(self, at: float, entry: Entry) -> None:
        if self._ended or self._failed or self._waiting.qsize() >= _MOST_WAITING:
            self._left_out[entry.kind] += 1
            return
        self._waiting.put((round(at * 1000), entry))

    # -- on the thread that writes -------------------------------------------------------------

    def _write_all(self) -> None:
        try:
            with contextlib.closing(_opened(self._path)) as connection:
                while self._write_batch(connection):
                    pass
        except (OSError, sqlite3.Error) as error:
            self._failed = True
            logger.warning(
                "the event log %s cannot be written (%s): the run goes on without it, and its page "
                "lacks presence, outages and log lines from here on",
                self._path,
                error,
            )

    def _write_batch(self, connection: sqlite3.Connection) -> bool:
        """Write what waits, once something does; return whether there is more to come."""
        items = [self._waiting.get()]
        with contextlib.suppress(queue.Empty):
            while len(items) < _BATCH:
                items.append(self._waiting.get_nowait())
        with connection:
            rows: list[_Row] = []
            for item in items:
                match item:
                    case RunStarted():
                        self._enter_server(connection, item)
                    case RunEnded():
                        self._end_server(connection, item)
                    case (at, entry):
                        rows.append((at, entry))
            self._enter(connection, rows)
            self._count_left_out(connection)
            self._trim(connection, len(items))
        return None not in items

    def _enter(self, connection: sqlite3.Connection, rows: list[_Row]) -> None:
        connection.executemany(
            "INSERT INTO entries (at_unix_ms, epoch, kind, word, who, server_round, text, numbers)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                (
                    at,
                    self._options.epoch,
                    entry.kind,
                    entry.word,
                    _utf8(entry.who),
                    entry.server_round,
                    _utf8(entry.text),
                    json.dumps(entry.numbers) if entry.numbers else "",
                )
                for at, entry in rows
            ),
        )

    def _enter_server(self, connection: sqlite3.Connection, started: RunStarted) -> None:
        how = "takeover" if self._options.waited else "resume"
        connection.execute(
            "INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?, ?, ?, ?, NULL, ?, '')",
            (
                self._options.epoch,
                socket.gethostname(),
                os.getpid(),
                __version__,
                started.broker,
                started.strategy,
                started.num_rounds,
                round(self._clock() * 1000),
                how if self._options.resumed else "begun",
            ),
        )

    def _end_server(self, connection: sqlite3.Connection, ended: RunEnded) -> None:
        how = "stopped" if ended.stopped else "failed" if ended.error else "finished"
        connection.execute(
            "UPDATE servers SET to_unix_ms = ?, ended = ? WHERE epoch = ?",
            (round(self._clock() * 1000), how, self._options.epoch),
        )

    def _count_left_out(self, connection: sqlite3.Connection) -> None:
        left_out, self._left_out = self._left_out, Counter()
        _add(connection, left_out)

    def _trim(self, connection: sqlite3.Connection, written: int) -> None:
        """Delete the oldest entries of a log that has become too long."""
        self._since_trim += written
        if self._since_trim < min(_TRIM_EVERY, self._most):
            return
        self._since_trim = 0
        (count,) = connection.execute("SELECT count(*) FROM entries").fetchone()
        for kinds in ((Kind.LOG, Kind.PRESENCE), (Kind.CONNECTION, Kind.NOTE, Kind.AWAITED)):
            excess = count - self._most
            if excess <= 0:
                return
            which = f"kind IN ({', '.join('?' * len(kinds))})"
            oldest = connection.execute(
                f"SELECT id, kind FROM entries WHERE {which} ORDER BY id LIMIT ?",  # noqa: S608
                (*kinds, excess),
            ).fetchall()
            connection.executemany(
                "DELETE FROM entries WHERE id = ?", [(id_,) for id_, _ in oldest]
            )
            _add(connection, Counter(kind for _, kind in oldest))
            count -= len(oldest)


def _utf8(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


def _add(connection: sqlite3.Connection, left_out: Counter[str]) -> None:
    for kind, count in left_out.items():
        connection.execute(
            "INSERT INTO left_out VALUES (?, ?)"
            " ON CONFLICT (kind) DO UPDATE SET count = count + excluded.count",
            (kind, count),
        )


def _opened(path: Path) -> sqlite3.Connection:
    """Open the event log at ``path``; one of another format, or a damaged one, is begun anew."""
    try:
        return _connected(path)
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise
        path.rename(path.with_name(f"{path.name}.damaged"))
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        return _connected(path)


def _connected(path: Path) -> sqlite3.Connection:
    new = not path.exists()
    connection = sqlite3.connect(path, check_same_thread=False, timeout=_PATIENCE)
    try:
        if new:
            path.chmod(0o600)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA journal_size_limit=4194304")
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if (application, version) == (APPLICATION_ID, FORMAT):
            return connection
        if connection.execute("SELECT count(*) FROM sqlite_master").fetchone() != (0,):
            raise sqlite3.DatabaseError("it is not an event log of this flmq")
        connection.executescript(SCHEMA)
        return connection
    except BaseException:
        connection.close()
        raise
