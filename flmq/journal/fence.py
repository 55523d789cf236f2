"""Fencing: only the server that took charge last writes to a run."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from flmq.journal.database import Database
from flmq.journal.errors import Fenced
from flmq.journal.runtable import RunTable

__all__ = ["Fence"]


class Fence:
    """Transactions of the server in charge, recognized by its epoch. Thread-safe."""

    def __init__(self, database: Database, run: RunTable) -> None:
        """Let nothing through until `take_charge`."""
        self._db = database
        self._run = run
        self._epoch: int | None = None

    def take_charge(self, at_least: int) -> int:
        """Raise the epoch to ``at_least``, or one more than the last, and write under it."""
        with self._db.writing() as tx:
            epoch = self._run.raise_epoch(tx, at_least)
        self._epoch = epoch
        return epoch

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Run the block in a transaction, as `Database.writing` does.

        Raises:
            Fenced: another server took charge; nothing has changed.
        """
        with self._db.writing() as tx:
            self.check(tx)
            yield tx

    def check(self, tx: sqlite3.Connection) -> None:
        """Raise `Fenced` if another server took charge."""
        if self._epoch is None:
            raise RuntimeError("the journal is not in charge: take_charge comes first")
        epoch = self._run.epoch(tx)
        if epoch != self._epoch:
            raise Fenced(self._run.name(tx), self._epoch, epoch)
