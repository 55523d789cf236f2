"""The database's tables, and how stored payloads are protected against damage.

SQLite checks its log but not the pages of the database file. Each payload therefore carries a
digest of its own: a page of zeros in the middle of it is noticed.
"""

from __future__ import annotations

from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from flmq.journal.errors import JournalDamaged
from flmq.journal.state import StateValue, decode_state, encode_state

__all__ = ["APPLICATION_ID", "FORMAT", "SCHEMA", "UPGRADES", "Seal"]

APPLICATION_ID = int.from_bytes(b"flmq", "big")
"""Identifies flmq's databases (SQLite, "PRAGMA application_id")."""
FORMAT = 5
"""Version of the whole folder's format; increased when an older reader would misread it."""

_SEAL_BYTES = 8

SCHEMA = """
CREATE TABLE run (
    id INTEGER PRIMARY KEY CHECK (id = 1),
    name TEXT NOT NULL,
    run_id TEXT NOT NULL,
    secret BLOB NOT NULL,
    seed BLOB NOT NULL,                 -- sealed state: any int
    epoch INTEGER NOT NULL,
    created_unix_ms INTEGER NOT NULL,
    fingerprint BLOB NOT NULL,          -- sealed state, as all BLOBs here but secret
    about BLOB NOT NULL,
    keep BLOB NOT NULL,
    finished BLOB
);
CREATE TABLE blobs (
    digest TEXT PRIMARY KEY,
    outline BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE checkpoints (
    server_round INTEGER PRIMARY KEY,
    at_unix_ms INTEGER NOT NULL,
    summary BLOB NOT NULL,
    digest TEXT,       -- NULL, and what follows: no longer kept
    history BLOB,
    state BLOB,
    state_digest TEXT  -- of each of the state's large arrays; NULL: none
);
CREATE TABLE phases (
    id INTEGER PRIMARY KEY,
    server_round INTEGER NOT NULL,
    phase TEXT NOT NULL,
    call INTEGER NOT NULL,
    opened_unix_ms INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    elapsed REAL NOT NULL,
    settled INTEGER NOT NULL,           -- a checkpoint of its round or a later one is there
    plan BLOB,                          -- NULL, and what follows: no longer kept
    state BLOB,
    state_digest TEXT,
    closed BLOB,                        -- NULL: open
    closed_unix_ms INTEGER,
    head BLOB,                          -- what of `closed` is the same for all asks; NULL: older
    UNIQUE (server_round, phase, call)
);
CREATE TABLE parts (                    -- what each client did in a closed phase, for people
    phase_id INTEGER PRIMARY KEY REFERENCES phases,
    parts BLOB NOT NULL
);
CREATE TABLE asks (
    id INTEGER PRIMARY KEY,             -- the order of asking
    phase_id INTEGER NOT NULL REFERENCES phases,
    client_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    task BLOB NOT NULL,
    digest TEXT
);
CREATE INDEX asks_by_phase ON asks (phase_id);
CREATE INDEX asks_by_digest ON asks (digest) WHERE digest IS NOT NULL;
CREATE TABLE contributions (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of arrival
    phase_id INTEGER NOT NULL REFERENCES phases,
    client_id TEXT NOT NULL,
    task_id TEXT NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    detail TEXT NOT NULL,
    reply BLOB NOT NULL,
    blob BLOB,
    size INTEGER NOT NULL,
    order_id TEXT NOT NULL DEFAULT '',     -- of the partial sum that it is in; '': in none
    course BLOB,                           -- when it was asked for, came and counted; NULL: older
    UNIQUE (phase_id, client_id)
);
CREATE TABLE sums (
    id INTEGER PRIMARY KEY AUTOINCREMENT,  -- the order of arrival
    phase_id INTEGER NOT NULL REFERENCES phases,
    task_id TEXT NOT NULL,
    blob BLOB NOT NULL,
    size INTEGER NOT NULL,
    UNIQUE (phase_id, task_id)
);
CREATE TABLE late (
    phase_id INTEGER NOT NULL REFERENCES phases,
    client_id TEXT NOT NULL,
    word TEXT NOT NULL,
    seconds REAL NOT NULL,
    times INTEGER NOT NULL,
    note TEXT NOT NULL DEFAULT '',
    task_id TEXT NOT NULL DEFAULT '',
    reply BLOB,                         -- kept: to count in a later round
    blob BLOB,
    size INTEGER NOT NULL DEFAULT 0,
    into_phase INTEGER,                 -- the phase that it counts in; NULL: none yet
    part BLOB,                          -- what its client did; NULL: older
    PRIMARY KEY (phase_id, client_id, word)
) WITHOUT ROWID;
"""


UPGRADES = {
    1: """
ALTER TABLE phases ADD COLUMN closed_unix_ms INTEGER;
ALTER TABLE late ADD COLUMN note TEXT NOT NULL DEFAULT '';
ALTER TABLE late ADD COLUMN task_id TEXT NOT NULL DEFAULT '';
ALTER TABLE late ADD COLUMN reply BLOB;
ALTER TABLE late ADD COLUMN blob BLOB;
ALTER TABLE late ADD COLUMN size INTEGER NOT NULL DEFAULT 0;
ALTER TABLE late ADD COLUMN into_phase INTEGER;
""",
    # state_digest may name several blobs since; one that holds several arrays is still read.
    2: "",
    # Partial sums: answers that an aggregator has added up name the sum that they are in.
    3: """
ALTER TABLE contributions ADD COLUMN order_id TEXT NOT NULL DEFAULT '';
CREATE TABLE sums (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    phase_id INTEGER NOT NULL REFERENCES phases,
    task_id TEXT NOT NULL,
    blob BLOB NOT NULL,
    size INTEGER NOT NULL,
    UNIQUE (phase_id, task_id)
);
""",
    # What each client did in a phase stays when its reply goes.
    4: """
ALTER TABLE phases ADD COLUMN head BLOB;
ALTER TABLE contributions ADD COLUMN course BLOB;
ALTER TABLE late ADD COLUMN part BLOB;
CREATE TABLE parts (
    phase_id INTEGER PRIMARY KEY REFERENCES phases,
    parts BLOB NOT NULL
);
""",
}
"""By format: the statements that migrate a database to the next format."""


class Seal:
    """Prefix payloads with a digest, and verify it when they are read."""

    def __init__(self, path: Path) -> None:
        """Name ``path`` in errors."""
        self._path = path

    def damaged(self, what: str) -> JournalDamaged:
        """Return an error that names the file, and ``what`` is wrong with it."""
        return JournalDamaged(self._path, what)

    def close(self, payload: bytes) -> bytes:
        """Return the payload in its stored form."""
        return _digest(payload) + payload

    def open(self, stored: bytes) -> bytes:
        """Return the payload; raises `JournalDamaged` if its digest does not match."""
        if not isinstance(stored, bytes):  # SQLite stores any type in any column
            raise self.damaged(f"a record in it is a {type(stored).__name__}")
        payload = stored[_SEAL_BYTES:]
        if _digest(payload) != stored[:_SEAL_BYTES]:
            raise self.damaged("a record in it does not have its checksum")
        return payload

    def pack(self, values: Mapping[str, StateValue], name: str) -> bytes:
        """Return values in stored form; raises `UnsavableState` naming what cannot be stored."""
        return self.close(encode_state(values, name))

    def unpack(self, stored: bytes) -> dict[str, Any]:
        """Return the values; raises `StoredDataError` if they are damaged."""
        return decode_state(self.open(stored))


def _digest(payload: bytes) -> bytes:
    return blake2b(payload, digest_size=_SEAL_BYTES, person=b"flmq.journal").digest()
