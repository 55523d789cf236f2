"""The single row with the run's identity, who is in charge of it, and whether it is over.

Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from typing import Any

from flmq.common.errors import JobInUse
from flmq.journal.records import JobIdentity, KeepPolicy
from flmq.journal.schema import Seal
from flmq.journal.state import StateValue

__all__ = ["RunTable"]


class RunTable:
    """The run's own row; absent before `begin`."""

    def __init__(self, seal: Seal) -> None:
        """Verify what is read with ``seal``."""
        self._seal = seal

    def begin(
        self,
        tx: sqlite3.Connection,
        identity: JobIdentity,
        fingerprint: Mapping[str, str],
        about: Mapping[str, StateValue],
        now_ms: int,
    ) -> None:
        """Insert the run; raises `JobInUse` if there is one."""
        if tx.execute("SELECT 1 FROM run").fetchone() is not None:
            raise JobInUse(identity.name)
        pack = self._seal.pack
        tx.execute(
            "INSERT INTO run (id, name, run_id, secret, seed, epoch, created_unix_ms,"
            " fingerprint, about, keep) VALUES (1, ?, ?, ?, ?, 0, ?, ?, ?, ?)",
            (
                identity.name,
                identity.run_id,
                identity.secret,
                pack({"seed": identity.seed}, "identity"),
                now_ms,
                pack(fingerprint, "fingerprint"),
                pack(about, "about"),
                pack(_keep_out(KeepPolicy()), "keep"),
            ),
        )

    def identity(self, tx: sqlite3.Connection) -> JobIdentity | None:
        """Return the run's identity; None before `begin`."""
        row = tx.execute("SELECT name, run_id, secret, seed FROM run").fetchone()
        if row is None:
            return None
        name, run_id, secret, seed = row
        return JobIdentity(name, run_id, secret, self._seal.unpack(seed)["seed"])

    def created_unix_ms(self, tx: sqlite3.Connection) -> int:
        """Return when the run began, in Unix ms."""
        return self._whole(tx, "created_unix_ms")

    def epoch(self, tx: sqlite3.Connection) -> int:
        """Return the fencing epoch; 0 if nobody has taken charge yet."""
        return self._whole(tx, "epoch")

    def name(self, tx: sqlite3.Connection) -> str:
        """Return the job's name."""
        return str(_row(tx, "SELECT name FROM run"))

    def raise_epoch(self, tx: sqlite3.Connection, at_least: int) -> int:
        """Store and return a new fencing epoch, greater than any before."""
        epoch = max(self.epoch(tx) + 1, at_least)
        tx.execute("UPDATE run SET epoch = ?", (epoch,))
        return epoch

    def fingerprint(self, tx: sqlite3.Connection) -> dict[str, Any]:
        """Return the fingerprint that `begin` was given."""
        return self._seal.unpack(_row(tx, "SELECT fingerprint FROM run"))

    def about(self, tx: sqlite3.Connection) -> dict[str, Any]:
        """Return the information for people that `begin` was given."""
        return self._seal.unpack(_row(tx, "SELECT about FROM run"))

    def keep(self, tx: sqlite3.Connection, policy: KeepPolicy) -> None:
        """Replace the policy."""
        tx.execute("UPDATE run SET keep = ?", (self._seal.pack(_keep_out(policy), "keep"),))

    def policy(self, tx: sqlite3.Connection) -> KeepPolicy:
        """Return the policy of what stays on disk."""
        return KeepPolicy(**self._seal.unpack(_row(tx, "SELECT keep FROM run")))

    def finish(self, tx: sqlite3.Connection, ending: Mapping[str, StateValue]) -> None:
        """Store how the run ended."""
        tx.execute("UPDATE run SET finished = ?", (self._seal.pack(ending, "ending"),))

    def ending(self, tx: sqlite3.Connection) -> dict[str, Any] | None:
        """Return how the run ended; None if it has not ended or not begun."""
        row = tx.execute("SELECT finished FROM run").fetchone()
        return None if row is None or row[0] is None else self._seal.unpack(row[0])

    def _whole(self, tx: sqlite3.Connection, column: str) -> int:
        value = _row(tx, f"SELECT {column} FROM run")  # noqa: S608  a name of our own
        if not isinstance(value, int):  # SQLite keeps anything in any column
            raise self._seal.damaged(f"the run's {column} is {value!r:.50}, not a whole number")
        return value


def _row(tx: sqlite3.Connection, query: str) -> Any:
    row = tx.execute(query).fetchone()
    if row is None:
        raise RuntimeError("the run has not begun: begin comes first")
    return row[0]


def _keep_out(policy: KeepPolicy) -> dict[str, StateValue]:
    return {"best": policy.best, "every": policy.every, "replies": policy.replies}
