"""Read a run's folder: to resume the run, and to show it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flmq.common.typing import Parameters
from flmq.journal.blob_store import BlobStore
from flmq.journal.checkpoints import CheckpointTable
from flmq.journal.database import Database
from flmq.journal.errors import JournalDamaged
from flmq.journal.marker import MARKER, Marker, read_marker, write_marker
from flmq.journal.phase_queries import PhaseQueries
from flmq.journal.phase_rows import LAST_ROUND, Detail
from flmq.journal.phases import PhaseReader
from flmq.journal.records import (
    Checkpoint,
    CheckpointInfo,
    Contribution,
    JobIdentity,
    PhaseRow,
    RecordedSum,
    RoundRow,
)
from flmq.journal.runtable import RunTable
from flmq.journal.schema import Seal

__all__ = ["JournalReader"]


class JournalReader:
    """Everything that can be read of a run, whoever is in charge of it. Thread-safe.

    Every method raises `JournalDamaged` if a file does not hold what was stored.
    """

    def __init__(self, folder: Path, database: Database, *, heal: bool = True) -> None:
        """Read ``folder`` through its ``database``; ``heal``: write the marker if it is missing."""
        self.folder = folder
        self._db = database
        self._seal = Seal(database.path)
        self._run = RunTable(self._seal)
        self._blob_store = BlobStore(folder, self._seal)
        self._phase_queries = PhaseQueries(self._seal, self._blob_store.load_state)
        self._checkpoints = CheckpointTable(self._seal)
        self.phases = PhaseReader(database, self._phase_queries)
        """The run's phases and their replies."""
        self.identity: JobIdentity | None = self._recognize(heal)
        """Identity of the run; None before `begin`."""

    # -- whose run it is ---------------------------------------------------------------------

    def fingerprint(self) -> dict[str, str]:
        """Return the fingerprint of code and configuration that `begin` was given."""
        with self._db.reading() as tx:
            return self._run.fingerprint(tx)

    @property
    def about(self) -> dict[str, Any]:
        """Return the information for people that `begin` was given."""
        with self._db.reading() as tx:
            return self._run.about(tx)

    @property
    def started_unix_ms(self) -> int:
        """Return when the run began, in Unix ms by that server's clock."""
        with self._db.reading() as tx:
            return self._run.created_unix_ms(tx)

    @property
    def finished(self) -> dict[str, Any] | None:
        """Return how the run ended; None if it has not."""
        with self._db.reading() as tx:
            return self._run.ending(tx)

    # -- parameters --------------------------------------------------------------------------

    def parameters(self, digest: str) -> Parameters:
        """Return the parameters with this digest, of a plan or checkpoint: verified and mapped.

        While anybody holds them, the same object is returned.
        """
        with self._db.reading() as tx:
            ref = self._blob_store.ref(tx, digest)
        return self._blob_store.load(ref)

    def reply_parameters(self, contribution: Contribution) -> Parameters | None:
        """Return the parameters of a contribution from disk; None if they are in its reply."""
        if contribution.blob is None:
            return None
        return self._blob_store.replies.load(contribution.task_id, contribution.blob)

    def sum_parameters(self, recorded: RecordedSum) -> Parameters:
        """Return the tensors of a partial sum from disk."""
        return self._blob_store.replies.load(recorded.order_id, recorded.blob)

    # -- rounds and checkpoints --------------------------------------------------------------

    def last_checkpoint(self) -> Checkpoint | None:
        """Return what the run resumes from; None before the first checkpoint."""
        with self._db.reading() as tx:
            row = self._checkpoints.last(tx)
            if row is None:
                return None
            state = self._blob_store.load_state(tx, row.state, row.state_digest)
            ref = self._blob_store.ref(tx, row.digest)
        history, summary = self._seal.unpack(row.history), self._seal.unpack(row.summary)
        return Checkpoint(row.server_round, self._blob_store.load(ref), history, state, summary)

    def checkpoints(self) -> list[CheckpointInfo]:
        """Return the models that are kept; `parameters` loads them by digest."""
        with self._db.reading() as tx:
            return [
                CheckpointInfo(
                    number,
                    digest,
                    self._blob_store.blobs.path(digest),
                    self._blob_store.ref(tx, digest).total,
                    at,
                    summary,
                    kept_as,
                )
                for number, digest, at, summary, kept_as in self._checkpoints.kept(
                    tx, self._run.policy(tx)
                )
            ]

    @property
    def best_by(self) -> str | None:
        """By what measurement the best model is kept; None: it is not."""
        with self._db.reading() as tx:
            return self._run.policy(tx).best

    @property
    def rounds_done(self) -> int:
        """Number of the last round with a checkpoint; 0 before the first."""
        with self._db.reading() as tx:
            return self._checkpoints.last_round(tx) or 0

    def rounds(
        self,
        since: int = 0,
        until: int = LAST_ROUND,
        *,
        outcomes: bool = True,
        parts: bool = False,
    ) -> list[RoundRow]:
        """Return the rounds from ``since`` to ``until``, both included, with every task's outcome.

        Without ``outcomes`` they come quickly, with the counts alone, which do for a list of a
        thousand rounds; with ``parts``, what each client did comes too.
        """
        with self._db.reading() as tx:
            summaries = self._checkpoints.summaries(tx, since, until)
            phases = self._phase_queries.rows(tx, since, until, Detail(outcomes, parts))
        return [
            _round_row(number, phases.get(number, []), summaries.get(number))
            for number in sorted(phases.keys() | summaries.keys())
        ]

    def late_replies(self) -> int:
        """Return a number that grows with each reply that comes late to a closed phase."""
        with self._db.reading() as tx:
            query = "SELECT coalesce(sum(times), 0) + count(into_phase) FROM late"
            (count,) = tx.execute(query).fetchone()
        return int(count)

    def close(self) -> None:
        """Close the journal; the run stays as it is. Idempotent."""
        self._db.close()

    def _recognize(self, heal: bool) -> JobIdentity | None:
        """Return the run's identity from its database; the marker beside it must agree."""
        marker = read_marker(self.folder)
        with self._db.reading() as tx:
            identity = self._run.identity(tx)
            if identity is None:
                if marker is not None:
                    what = f"knows no run, though {MARKER} names run {marker.run_id}"
                    raise JournalDamaged(self._db.path, what)
                return None
            created = self._run.created_unix_ms(tx)
        if marker is None and heal:
            # A crash within `begin`, or somebody deleted it.
            write_marker(self.folder, Marker(identity.name, identity.run_id, created))
        elif marker is not None and marker.run_id != identity.run_id:
            what = f"is of run {identity.run_id}, and {MARKER} beside it of run {marker.run_id}"
            raise JournalDamaged(self._db.path, what)
        return identity


def _round_row(number: int, phases: list[PhaseRow], summary: dict[str, Any] | None) -> RoundRow:
    said = summary or {}
    return RoundRow(
        number,
        tuple(phases),
        summary is not None,
        said.get("loss"),
        said.get("metrics") or {},
        said.get("seconds"),
        said,
    )
