"""The journal of a run: what the server has decided, made durable before it acts on it.

The order is DESIGN.md's, section 3: a phase's plan before its tasks are published; a client's
answer before it is acknowledged; the closing set before it is aggregated; the model before the next
round. Everything in a run's folder follows from it::

    run.json            marks the folder as a run's
    journal.db          the records (SQLite, WAL)
    blobs/<digest>.blob parameters: of checkpoints, and of tasks
    replies/            parameters of replies
    spool/              replies on their way in

Several processes may open one folder. The one that last took charge writes; the others are fenced.
"""

from __future__ import annotations

import shutil
import sqlite3
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flmq.common.logger import logger
from flmq.common.typing import Parameters, Scalar
from flmq.journal.active_marker import ActiveMarker
from flmq.journal.blob_store import state_digests
from flmq.journal.checkpoints import StoredCheckpoint
from flmq.journal.database import Database
from flmq.journal.errors import JournalNotWritable
from flmq.journal.fence import Fence
from flmq.journal.files import make_folder, remove_temporaries
from flmq.journal.marker import MARKER, Marker, write_marker
from flmq.journal.opening import DATABASE, open_database
from flmq.journal.phases import PhaseWriter
from flmq.journal.phasetables import PhaseTables
from flmq.journal.reader import JournalReader
from flmq.journal.records import JobIdentity, KeepPolicy
from flmq.journal.state import StateValue
from flmq.wire import BlobRef

__all__ = ["Journal"]

_SPOOL = "spool"


class Journal(JournalReader):
    """One run's records and files. Thread-safe.

    Methods that write raise `Fenced` if another server took charge, having changed nothing; and
    `JournalNotWritable` if the disk refuses, with the journal unchanged.
    """

    def __init__(self, folder: Path, database: Database, clock: Callable[[], int]) -> None:
        """Do not call it; use `open`."""
        super().__init__(folder, database)
        self._clock = clock
        self._fence = Fence(database, self._run)
        self._mark: ActiveMarker | None = None
        self.phases: PhaseWriter = PhaseWriter(
            database,
            self._phase_queries,
            PhaseTables(self._seal),
            self._blob_store,
            self._fence,
            self._now_ms,
        )
        """The run's phases and their replies, to be read and written."""

    @classmethod
    def open(
        cls, folder: Path, *, create: bool = True, clock: Callable[[], int] = time.time_ns
    ) -> Journal:
        """Open the run in ``folder``; if there is none, create one, to be begun with `begin`.

        Without ``create``, a missing run is an error. ``clock`` gives nanoseconds since 1970 UTC.

        Raises:
            JournalDamaged: the run is damaged.
            NewerJournal: a newer flmq wrote it.
            JournalNotWritable: the folder cannot be written.
        """
        if create:
            make_folder(folder)
        database = open_database(folder, create=create)
        try:
            return cls(folder, database, clock)
        except BaseException:
            database.close()
            raise

    def close(self) -> None:
        """Close the journal; the run stays as it is. Idempotent."""
        super().close()
        if self._mark is not None:
            self._mark.release()

    # -- whose run it is ---------------------------------------------------------------------

    def begin(
        self,
        identity: JobIdentity,
        fingerprint: Mapping[str, str],
        about: Mapping[str, Scalar],
    ) -> None:
        """Begin a run: store its identity, fingerprint, and information for people.

        ``fingerprint`` describes the run's code and configuration.

        Raises:
            JobInUse: another process has begun it meanwhile.
        """
        now = self._now_ms()
        with self._db.writing() as tx:
            self._run.begin(tx, identity, fingerprint, about, now)
        # The log could be lost; from here on the database file itself records the run.
        self._db.fold()
        write_marker(self.folder, Marker(identity.name, identity.run_id, now))
        self.identity = identity

    def take_charge(self) -> int:
        """Raise the fencing epoch and write under it from now on; all others are fenced.

        Returns:
            The epoch: milliseconds since 1970 UTC, or one more than the last if the clock
            jumped back.
        """
        epoch = self._fence.take_charge(self._now_ms())
        if self._mark is None:
            self._mark = ActiveMarker(self.folder, epoch)
        self._blob_store.tidy()
        for name in (DATABASE, MARKER):
            remove_temporaries(self.folder, name)
        for leftover in (self.folder / _SPOOL).glob("*"):
            # Left by a killed server, or by a fenced one, which may lose it as well.
            shutil.rmtree(leftover, ignore_errors=True)
        self._sweep()
        self._db.fold()
        return epoch

    # -- parameters --------------------------------------------------------------------------

    def put_parameters(self, parameters: Parameters, ref: BlobRef | None = None) -> BlobRef:
        """Write ``parameters`` to disk, once, so that a plan may name them.

        ``ref`` is their reference if known, which saves reading them. Once named, they stay until a
        checkpoint finds that no plan and no checkpoint names them any more.
        """
        return self._blob_store.put(parameters, ref)

    def adopt_reply(self, task_id: str, path: Path, ref: BlobRef) -> Path:
        """Take over the file of a reply's parameters durably, and return its new path.

        ``path`` must be on the file system of the run's folder (`spool_folder` is).
        """
        with self._db.reading() as tx:
            self._fence.check(tx)
        return self._blob_store.adopt(task_id, path, ref)

    def release_reply(self, task_id: str, ref: BlobRef) -> None:
        """Release an adopted reply's file that no record is going to name."""
        self._blob_store.release(task_id, ref)

    @property
    def gone(self) -> bool:
        """Whether the run's folder was deleted, moved or replaced since."""
        return self._db.gone

    @property
    def spool_folder(self) -> Path:
        """Folder for replies in progress, from which they can be adopted."""
        folder = self.folder / _SPOOL
        make_folder(folder)
        return folder

    # -- rounds and the run ------------------------------------------------------------------

    def checkpoint(
        self,
        server_round: int,
        parameters: Parameters,
        history: Mapping[str, Any],
        state: Mapping[str, StateValue],
        summary: Mapping[str, Any],
    ) -> str:
        """Record the end of a round: first the model, then that the round is over; then clean up.

        ``summary`` is for people and for choosing the best model: ``loss``, ``metrics``,
        ``seconds`` and other information.

        Returns:
            The digest of the parameters.

        Raises:
            UnsavableState: the strategy's state, or a measurement, cannot be stored.
        """
        ref = self._blob_store.put(parameters)
        stored_state, state_digest = self._blob_store.put_state(state, "state_dict()")
        row = StoredCheckpoint(
            server_round,
            self._now_ms(),
            self._seal.pack(summary, "summary"),
            ref.digest,
            self._seal.pack(history, "history"),
            stored_state,
            state_digest,
        )
        digests = [ref.digest, *state_digests(state_digest)]
        with self._fence.writing() as tx:
            self._blob_store.name(tx, digests)
            self._checkpoints.add(tx, row)
            self._let_go(tx, server_round)
        self._blob_store.named(digests)
        self._clean_up()
        return ref.digest

    def keep(self, policy: KeepPolicy) -> None:
        """Set which models and replies stay on disk, from the next checkpoint on."""
        with self._fence.writing() as tx:
            self._run.keep(tx, policy)

    def finish(self, ending: Mapping[str, Any]) -> None:
        """Record that the run is over, and how it ended."""
        with self._fence.writing() as tx:
            self._run.finish(tx, ending)
        self._db.fold()

    # -- within ------------------------------------------------------------------------------

    def _let_go(self, tx: sqlite3.Connection, server_round: int) -> None:
        policy = self._run.policy(tx)
        self._checkpoints.apply(tx, policy)
        self.phases.settle(tx, server_round, keep_replies=policy.replies == "all")

    def _clean_up(self) -> None:
        """Clean up after a checkpoint, which stands even if this fails."""
        try:
            # Before deleting anything: if the log were lost, an older record must not miss its
            # files.
            self._db.fold()
            self._sweep()
        except JournalNotWritable as error:
            logger.warning("old files of the run stay for now: %s", error)

    def _sweep(self) -> None:
        """Remove the files that no record names.

        It holds the database's write lock: a server that takes charge now waits, and does not find
        a file that is about to be removed.
        """
        with self._fence.writing() as tx:
            named = self._phase_queries.reply_files(tx, self._blob_store.replies.path)
            self._blob_store.sweep(tx, named)

    def _now_ms(self) -> int:
        return self._clock() // 1_000_000
