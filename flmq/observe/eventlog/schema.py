"""The file of a run's event log, and its tables."""

from __future__ import annotations

__all__ = ["APPLICATION_ID", "FILE", "FORMAT", "SCHEMA"]

FILE = "events.sqlite3"
"""In the run's folder, beside its journal. It may be deleted: no result is in it."""
APPLICATION_ID = int.from_bytes(b"flme", "big")
FORMAT = 1
"""SQLite's user_version of the file; another one is begun anew."""

SCHEMA = f"""
CREATE TABLE servers (
    epoch INTEGER PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    version TEXT NOT NULL,
    broker TEXT NOT NULL,
    strategy TEXT NOT NULL,
    num_rounds INTEGER NOT NULL,
    from_unix_ms INTEGER NOT NULL,
    to_unix_ms INTEGER,                 -- NULL: it runs, or was killed
    how TEXT NOT NULL,                  -- begun, resume, takeover
    ended TEXT NOT NULL                 -- finished, stopped, failed; empty: as to_unix_ms
);
CREATE TABLE entries (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    at_unix_ms INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    word TEXT NOT NULL,
    who TEXT NOT NULL,
    server_round INTEGER,
    text TEXT NOT NULL,
    numbers TEXT NOT NULL               -- JSON
);
CREATE INDEX entries_by_kind ON entries (kind, id);
CREATE INDEX entries_by_who ON entries (who, id) WHERE kind = 'presence';
CREATE TABLE left_out (kind TEXT PRIMARY KEY, count INTEGER NOT NULL);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {FORMAT};
"""
