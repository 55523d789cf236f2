"""What a run's folder says: for going on with the run, and for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flmq.common.phase import Phase
from flmq.common.typing import Parameters
from flmq.journal.blob_store import BlobStore
from flmq.journal.checkpoints import CheckpointTable
from flmq.journal.database import Database
from flmq.journal.errors import JournalDamaged
from flmq.journal.marker import MARKER, Marker, read_marker, write_marker
from flmq.journal.phases import PhaseTables
from flmq.journal.records import (
    CarriedReply,
    Checkpoint,
    CheckpointInfo,
    ClosedPhase,
    Contribution,
    JobIdentity,
    PhaseKey,
    PhaseRow,
    RoundRow,
)
from flmq.journal.runtable import RunTable
from flmq.journal.schema import Seal

__all__ = ["JournalReader"]


class JournalReader:
    """All that can be read of a run; anybody may, whoever is in charge. Thread-safe.

    Every method raises `JournalDamaged` where a file is not what was stored.
    """

    def __init__(self, folder: Path, database: Database) -> None:
        """Read ``folder`` through its ``database``."""
        self.folder = folder
        self._db = database
        self._seal = Seal(database.path)
        self._run = RunTable(self._seal)
        self._blob_store = BlobStore(folder, self._seal)
        self._phases = PhaseTables(self._seal, self._blob_store.load_state)
        self._checkpoints = CheckpointTable(self._seal)
        self.identity: JobIdentity | None = self._recognize()
        """Whose run this is; None before `begin`."""

    # -- whose run it is ---------------------------------------------------------------------

    def fingerprint(self) -> dict[str, str]:
        """What `begin` was told of code and configuration."""
        with self._db.reading() as tx:
            return self._run.fingerprint(tx)

    @property
    def about(self) -> dict[str, Any]:
        """What `begin` was told for people."""
        with self._db.reading() as tx:
            return self._run.about(tx)

    @property
    def started_unix_ms(self) -> int:
        """When the run was begun, by the clock of that server."""
        with self._db.reading() as tx:
            return self._run.created_unix_ms(tx)

    @property
    def finished(self) -> dict[str, Any] | None:
        """How the run ended; None if it has not."""
        with self._db.reading() as tx:
            return self._run.ending(tx)

    # -- parameters --------------------------------------------------------------------------

    def parameters(self, digest: str) -> Parameters:
        """The parameters that a plan or a checkpoint names, on disk; checked, then mapped.

        While somebody holds them the same object comes back.
        """
        with self._db.reading() as tx:
            ref = self._blob_store.ref(tx, digest)
        return self._blob_store.load(ref)

    def reply_parameters(self, contribution: Contribution) -> Parameters | None:
        """The parameters that a contribution names, on disk; None: they are in its reply."""
        if contribution.blob is None:
            return None
        return self._blob_store.replies.load(contribution.task_id, contribution.blob)

    # -- phases, rounds, checkpoints ---------------------------------------------------------

    def first_call(self, server_round: int, phase: Phase) -> int:
        """Where a restarted server begins to count the calls of a phase.

        Calls below belong to rounds that have their checkpoint; from here on `find_phase` knows
        those that the server before this one has opened.
        """
        with self._db.reading() as tx:
            return self._phases.first_call(tx, server_round, phase)

    def closed_phase(self, key: PhaseKey) -> ClosedPhase | None:
        """How a phase was closed, without its plan and replies; None: it is open, or never was."""
        with self._db.reading() as tx:
            return self._phases.closed(tx, key)

    def last_closed(self, phase: Phase) -> int:
        """The last round whose phase of this kind has closed; 0 if none has."""
        with self._db.reading() as tx:
            return self._phases.last_closed(tx, phase)

    def waiting_late(self) -> list[CarriedReply]:
        """Late replies that are kept for a later round which has not closed, by client id."""
        with self._db.reading() as tx:
            return list(self._phases.late.waiting(tx))

    def carried_into(self, key: PhaseKey) -> list[CarriedReply]:
        """Late replies that count in a phase which has closed, by client id."""
        with self._db.reading() as tx:
            return self._phases.carried_into(tx, key)

    def last_checkpoint(self) -> Checkpoint | None:
        """What the run goes on from; None before the first."""
        with self._db.reading() as tx:
            row = self._checkpoints.last(tx)
            if row is None:
                return None
            state = self._blob_store.load_state(tx, row.state, row.state_digest)
            ref = self._blob_store.ref(tx, row.digest)
        history, summary = self._seal.unpack(row.history), self._seal.unpack(row.summary)
        return Checkpoint(row.server_round, self._blob_store.load(ref), history, state, summary)

    def checkpoints(self) -> list[CheckpointInfo]:
        """The models that are kept; `parameters` loads them by digest."""
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
    def rounds_done(self) -> int:
        """Number of the last round that has its checkpoint; 0 before the first."""
        with self._db.reading() as tx:
            return self._checkpoints.last_round(tx) or 0

    def rounds(self) -> list[RoundRow]:
        """Every round with what became of every task."""
        with self._db.reading() as tx:
            summaries = self._checkpoints.summaries(tx)
            phases = self._phases.rows(tx)
        return [
            _round_row(number, phases.get(number, []), summaries.get(number))
            for number in sorted(phases.keys() | summaries.keys())
        ]

    def _recognize(self) -> JobIdentity | None:
        """Whose run this is, by its database; what stands beside must agree."""
        marker = read_marker(self.folder)
        with self._db.reading() as tx:
            identity = self._run.identity(tx)
            if identity is None:
                if marker is not None:
                    what = f"knows no run, though {MARKER} names run {marker.run_id}"
                    raise JournalDamaged(self._db.path, what)
                return None
            created = self._run.created_unix_ms(tx)
        if marker is None:
            # A crash within `begin`, or somebody's tidiness.
            write_marker(self.folder, Marker(identity.name, identity.run_id, created))
        elif marker.run_id != identity.run_id:
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
