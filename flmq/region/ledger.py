"""The aggregator's journal: orders in work, the replies that are held, partial sums.

Beside a small database lie the replies' parameters, as in a run's folder. An order's replies go
when its partial sum is durable, and that goes with its receipt. Without a folder nothing is kept:
clients have their replies until the server has them.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

from flmq.common.crashpoints import crash_point
from flmq.common.errors import PeerError
from flmq.common.locks import Timeout, process_lock
from flmq.common.parameter import parameters_of, with_parameters
from flmq.common.typing import Parameters
from flmq.journal.blobs import BlobFolder, ReplyFolder
from flmq.journal.database import Database
from flmq.journal.errors import JournalDamaged, JournalGone, JournalNotWritable, NewerJournal
from flmq.journal.files import remove_temporaries, writing
from flmq.journal.opening import check_database, create_database
from flmq.region.errors import LedgerDamaged, LedgerInUse, LedgerNotWritable
from flmq.region.work import Held, OrderInWork, Stage
from flmq.server.replies.spool import SpooledParameters, SpoolFailed
from flmq.wire import AggregateOrder, BlobRef, FileParameters, Reply, decode, encode, refer
from flmq.wire.entries import read_entries, write_entries

__all__ = ["Ledger", "MemoryLedger", "StoredLedger"]

_APPLICATION_ID = 0x666C6167  # "flag"
_FORMAT = 1
_SCHEMA = """
CREATE TABLE orders (
    task_id TEXT PRIMARY KEY,
    stage TEXT NOT NULL,
    sent BLOB NOT NULL,
    partial TEXT,
    place INTEGER NOT NULL
) STRICT;
CREATE TABLE replies (
    order_id TEXT NOT NULL REFERENCES orders ON DELETE CASCADE,
    task_id TEXT NOT NULL,
    entry BLOB NOT NULL,
    reply BLOB,
    file TEXT,
    PRIMARY KEY (order_id, task_id)
) STRICT, WITHOUT ROWID;
"""


class MemoryLedger:
    """Keeps nothing beyond this process."""

    folder: Path | None = None

    def orders(self) -> list[OrderInWork]:
        """Return the orders in work, in the order in which they came."""
        return []

    def put(self, work: OrderInWork) -> None:
        """Keep an order as it is now, without its replies."""

    def hold(self, held: Sequence[tuple[OrderInWork, Held]]) -> list[tuple[OrderInWork, Held]]:
        """Make replies durable, and return them as they are kept."""
        return list(held)

    def answer(self, work: OrderInWork, partial: Parameters) -> Parameters:
        """Make an order's partial sum durable, in place of its replies; return it as it is kept."""
        return partial

    def forget(self, task_ids: Sequence[str]) -> None:
        """Forget orders."""

    def close(self) -> None:
        """Close what is open."""


Ledger = MemoryLedger
"""What an aggregator needs of either."""


class StoredLedger(MemoryLedger):
    """Keeps orders, replies and partial sums in a folder. For one thread."""

    def __init__(self, folder: Path) -> None:
        """Open the journal in ``folder``, which is made if it is not there.

        Raises:
            LedgerInUse: another live process has it open.
            LedgerDamaged: what is there is not what was written.
            LedgerNotWritable: it cannot be written.
        """
        self.folder: Path = folder
        with self._translated():
            self._blobs, self._replies = BlobFolder(folder), ReplyFolder(folder)
            self._lock = process_lock(folder / "aggregator.lock")
            with writing(folder):
                try:
                    self._lock.acquire(blocking=False)
                except Timeout as error:
                    raise LedgerInUse(folder) from error
            path = folder / "aggregator.db"
            if not path.exists():
                create_database(path, _SCHEMA, _APPLICATION_ID, _FORMAT)
            self._database = Database(path)
            check_database(self._database, _APPLICATION_ID, _FORMAT)
            for each in (folder, self._blobs.folder, self._replies.folder):
                remove_temporaries(each)
            self._sweep()

    def orders(self) -> list[OrderInWork]:
        """Return the orders in work, in the order in which they came."""
        with self._translated(), self._database.reading() as tx:
            rows = tx.execute("SELECT task_id, stage, sent, partial FROM orders ORDER BY place")
            return [self._order(tx, *row) for row in rows.fetchall()]

    def put(self, work: OrderInWork) -> None:
        """Keep an order as it is now; of its replies, those that it still lists."""
        order = work.order
        with self._translated(), self._database.writing() as tx:
            tx.execute(
                "INSERT INTO orders (task_id, stage, sent, place) "
                "VALUES (?, ?, ?, (SELECT coalesce(max(place), 0) + 1 FROM orders)) "
                "ON CONFLICT (task_id) DO UPDATE SET stage = excluded.stage, sent = excluded.sent",
                (order.task_id, work.stage.value, encode(order)),
            )
            if work.stage is Stage.PASSED:
                tx.execute("UPDATE orders SET partial = NULL WHERE task_id = ?", (order.task_id,))
            stored = tx.execute("SELECT task_id FROM replies WHERE order_id = ?", (order.task_id,))
            gone = [row for row in stored.fetchall() if row[0] not in work.held]
            tx.executemany(
                "DELETE FROM replies WHERE order_id = ? AND task_id = ?",
                [(order.task_id, task_id) for (task_id,) in gone],
            )
        crash_point("aggregator.order_kept")
        if gone or work.stage is Stage.PASSED:
            self._sweep()

    def hold(self, held: Sequence[tuple[OrderInWork, Held]]) -> list[tuple[OrderInWork, Held]]:
        """Make replies durable in one transaction, and return them as they are kept."""
        with self._translated():
            kept = [(work, self._adopted(each)) for work, each in held]
            with self._database.writing() as tx:
                tx.executemany(
                    "INSERT OR REPLACE INTO replies VALUES (?, ?, ?, ?, ?)",
                    [(work.order.task_id, *self._row(each)) for work, each in kept],
                )
        crash_point("aggregator.reply_kept")
        return kept

    def answer(self, work: OrderInWork, partial: Parameters) -> Parameters:
        """Make an order's partial sum durable, in place of its replies; return it as it is kept."""
        ref = refer(partial)
        with self._translated():
            # One of no bytes at all, as nobody answered, cannot be a file.
            if ref.total:
                self._blobs.put([(ref, partial)])
            crash_point("aggregator.partial_written")
            with self._database.writing() as tx:
                outline = json.dumps([ref.digest, ref.tensor_type, ref.lengths])
                tx.execute(
                    "UPDATE orders SET stage = ?, partial = ? WHERE task_id = ?",
                    (Stage.ANSWERED.value, outline, work.order.task_id),
                )
                tx.execute(
                    "UPDATE replies SET reply = NULL, file = NULL WHERE order_id = ?",
                    (work.order.task_id,),
                )
            crash_point("aggregator.partial_kept")
            self._sweep()
            return self._blobs.load(ref) if ref.total else partial

    def forget(self, task_ids: Sequence[str]) -> None:
        """Forget orders."""
        with self._translated(), self._database.writing() as tx:
            tx.executemany("DELETE FROM orders WHERE task_id = ?", [(one,) for one in task_ids])
        self._sweep()

    def close(self) -> None:
        """Close the database."""
        self._database.close()
        self._lock.release()

    def _order(
        self, tx: sqlite3.Connection, task_id: str, stage: str, sent: bytes, outline: str | None
    ) -> OrderInWork:
        order = decode(sent, our_own=True)
        if not isinstance(order, AggregateOrder) or order.task_id != task_id:
            raise JournalDamaged(self._database.path, f"is damaged: {task_id} is no order")
        work = OrderInWork(order, Stage(stage))
        if outline is not None:
            digest, tensor_type, lengths = json.loads(outline)
            ref = BlobRef(digest, tensor_type, tuple(lengths))
            empty = Parameters([b""] * len(lengths), tensor_type)
            work.partial = self._blobs.load(ref) if ref.total else empty
        rows = tx.execute("SELECT entry, reply FROM replies WHERE order_id = ?", (task_id,))
        for entry, reply in rows:
            (one,) = read_entries(entry, most=1)
            work.held[one.task_id] = Held(one, None if reply is None else self._reply(reply))
        if work.partial is not None:  # with those that came from below
            entries = read_entries(work.partial.tensors[1])
            work.held.update((entry.task_id, Held(entry)) for entry in entries)
        return work

    def _reply(self, stored: bytes) -> Reply:
        reply = cast(Reply, decode(stored, our_own=True))
        if reply.blob is None:
            return reply
        parameters = self._replies.load(reply.task_id, reply.blob)
        return replace(reply, res=with_parameters(reply.res, parameters), blob=None)

    def _adopted(self, held: Held) -> Held:
        """Return a reply whose parameters, if they are in the spool, lie in our folder."""
        parameters = None if held.reply is None else parameters_of(held.reply.res)
        if isinstance(parameters, SpooledParameters):
            assert held.reply is not None
            path = self._replies.adopt(held.reply.task_id, parameters.ref, parameters.path)
            parameters.keep(path)
        return held

    def _row(self, held: Held) -> tuple[str, bytes, bytes | None, str | None]:
        """Return a reply as it is stored: large parameters lie in a file beside the database."""
        reply, file = held.reply, None
        if reply is not None:
            parameters = parameters_of(reply.res)
            if isinstance(parameters, FileParameters):
                bare = with_parameters(reply.res, Parameters([], ""))
                reply = replace(reply, res=bare, blob=parameters.ref)
                file = self._replies.path(reply.task_id, parameters.ref).name
        entry = write_entries([held.entry])
        return held.entry.task_id, entry, None if reply is None else encode(reply), file

    def _sweep(self) -> None:
        """Remove the files that no record names."""
        with self._translated():
            with self._database.reading() as tx:
                outlines = tx.execute("SELECT partial FROM orders WHERE partial IS NOT NULL")
                partials = [json.loads(outline)[0] for (outline,) in outlines.fetchall()]
                files = tx.execute("SELECT file FROM replies WHERE file IS NOT NULL").fetchall()
            self._blobs.sweep(partials)
            self._replies.sweep(self._replies.folder / file for (file,) in files)

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn errors of the journal into those of an aggregator."""
        try:
            yield
        except (JournalDamaged, JournalGone, NewerJournal, PeerError) as error:
            raise LedgerDamaged(self.folder, str(error)) from error
        except (JournalNotWritable, SpoolFailed) as error:
            raise LedgerNotWritable(self.folder, str(error)) from error
