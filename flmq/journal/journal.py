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

import contextlib
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flmq.common.logger import logger
from flmq.common.typing import Parameters, Scalar
from flmq.journal.active_marker import ActiveMarker
from flmq.journal.blob_store import state_digests
from flmq.journal.checkpoints import StoredCheckpoint
from flmq.journal.database import Database
from flmq.journal.errors import Fenced, JournalNotWritable
from flmq.journal.files import make_folder, remove_temporaries
from flmq.journal.marker import MARKER, Marker, write_marker
from flmq.journal.opening import DATABASE, open_database
from flmq.journal.reader import JournalReader
from flmq.journal.records import (
    ClosedPhase,
    Contribution,
    JobIdentity,
    KeepPolicy,
    LateEntry,
    PhaseKey,
    PhaseRecord,
    Plan,
)
from flmq.journal.state import StateValue
from flmq.round import Outcome
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
        self._epoch: int | None = None
        self._mark: ActiveMarker | None = None
        self._lock = threading.Lock()
        self._in_flight: set[PhaseKey] = set()

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
        self._db.close()
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
        with self._db.writing() as tx:
            epoch = self._run.raise_epoch(tx, self._now_ms())
        self._epoch = epoch
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
            self._fence(tx)
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

    # -- phases ------------------------------------------------------------------------------

    def open_phase(self, key: PhaseKey, plan: Plan) -> None:
        """Record what a phase is going to do, before it does it.

        Raises:
            UnsavableState: the strategy's state cannot be stored.
            RuntimeError: it was opened before; or names parameters that were not put.
        """
        state = self._blob_store.put_state(plan.state, "state_dict()")
        digests = {ask.model for ask in plan.asks if ask.model is not None}
        digests.update(state_digests(state[1]))
        with self._writing() as tx:
            self._blob_store.name(tx, digests)
            self._phases.open(tx, key, plan, state, self._now_ms())
        self._blob_store.named(digests)
        with self._lock:
            self._in_flight.add(key)

    def find_phase(self, key: PhaseKey) -> PhaseRecord | None:
        """Return all that is recorded of a phase; None if it was never opened.

        Raises:
            NotKept: its round is over, and its plan and replies were deleted.
        """
        with self._db.reading() as tx:
            record = self._phases.find(tx, key)
        if record is not None and record.closed is None:
            with self._lock:
                self._in_flight.add(key)
        return record

    def tick(self, key: PhaseKey, elapsed: float) -> None:
        """Record that the phase has been open for ``elapsed`` seconds under a server in charge."""
        with self._writing() as tx:
            self._phases.tick(tx, key, elapsed)

    def contribute(self, key: PhaseKey, contribution: Contribution) -> Outcome:
        """Record a client's answer, before it is acknowledged.

        Returns:
            The contribution's kind; DUPLICATE if one of this client is recorded already, LATE if
            the phase is closed: nothing has changed then.
        """
        return self.contribute_many([(key, contribution)])[0]

    def contribute_many(self, items: Iterable[tuple[PhaseKey, Contribution]]) -> list[Outcome]:
        """Record as `contribute` does, all in one transaction."""
        return self.take_in(items, ())[0]

    def take_in(
        self,
        items: Iterable[tuple[PhaseKey, Contribution]],
        late: Iterable[LateEntry],
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Record what came: answers as `contribute`, and late and duplicate ones; all or nothing.

        Returns:
            The words of both. A late reply is entered once: that of a task which has one already
            is a DUPLICATE, counted, and not kept.
        """
        pairs, entries = list(items), list(late)
        with self._writing() as tx:
            words = [self._phases.contribute(tx, key, what) for key, what in pairs]
            late_words = [self._phases.enter_late(tx, entry) for entry in entries]
        # A reply whose phase has just closed may still be entered as late, with its file.
        self._blob_store.contributed(
            what for (_, what), word in zip(pairs, words, strict=True) if word is not Outcome.LATE
        )
        self._blob_store.contributed(entry.kept for entry in entries if entry.kept is not None)
        return words, late_words

    def judge(self, key: PhaseKey, client_id: str, kind: Outcome, reason: str) -> None:
        """Record the verdict on a contribution that came before its phase was opened again."""
        with self._writing() as tx:
            self._phases.judge(tx, key, client_id, kind, reason)

    def seconds_since_closed(self, key: PhaseKey) -> float | None:
        """Return the seconds since a phase closed, by this server's clock; None if it is open."""
        with self._db.reading() as tx:
            at = self._phases.closed_unix_ms(tx, key)
        return None if at is None else max(0.0, (self._now_ms() - at) / 1000)

    def close_phase(self, key: PhaseKey, closed: ClosedPhase) -> None:
        """Record the closing set, before it is aggregated. Final; repeating it is harmless.

        Raises:
            RuntimeError: it was closed differently; or contains a client without an accepted
                contribution.
        """
        with self._writing() as tx:
            self._phases.close(tx, key, closed, self._now_ms())
        with self._lock:
            self._in_flight.discard(key)

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
        with self._writing() as tx:
            self._blob_store.name(tx, digests)
            self._checkpoints.add(tx, row)
            self._let_go(tx, server_round)
        self._blob_store.named(digests)
        self._clean_up()
        return ref.digest

    def keep(self, policy: KeepPolicy) -> None:
        """Set which models and replies stay on disk, from the next checkpoint on."""
        with self._writing() as tx:
            self._run.keep(tx, policy)

    def finish(self, ending: Mapping[str, Any]) -> None:
        """Record that the run is over, and how it ended."""
        with self._writing() as tx:
            self._run.finish(tx, ending)
        self._db.fold()

    # -- within ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Run a transaction of the server in charge."""
        with self._db.writing() as tx:
            self._fence(tx)
            yield tx

    def _fence(self, tx: sqlite3.Connection) -> None:
        if self._epoch is None:
            raise RuntimeError("the journal is not in charge: take_charge comes first")
        epoch = self._run.epoch(tx)
        if epoch != self._epoch:
            raise Fenced(self._run.name(tx), self._epoch, epoch)

    def _let_go(self, tx: sqlite3.Connection, server_round: int) -> None:
        policy = self._run.policy(tx)
        self._checkpoints.apply(tx, policy)
        with self._lock:
            in_flight = tuple(self._in_flight)
        self._phases.settle(tx, server_round, in_flight, policy.replies == "all")

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
        with self._writing() as tx:
            self._blob_store.sweep(tx, self._phases.reply_files(tx, self._blob_store.replies.path))

    def _now_ms(self) -> int:
        return self._clock() // 1_000_000
