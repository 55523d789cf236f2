"""Read the tables of phases: to resume a run, and to show it.

Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from flmq.common.phase import Phase
from flmq.journal.courses import course_in
from flmq.journal.errors import NotKept
from flmq.journal.latetable import LateTable
from flmq.journal.phase_rows import PhaseRows
from flmq.journal.records import (
    ClosedPhase,
    Contribution,
    PhaseKey,
    PhaseRecord,
    Plan,
    PlannedAsk,
    RecordedSum,
)
from flmq.journal.references import ref_in
from flmq.journal.schema import Seal
from flmq.round import DIRECT, STREAM, Outcome, Policy
from flmq.wire import BlobRef

__all__ = ["PhaseQueries", "key_columns", "phase_id"]

LoadState = Callable[[sqlite3.Connection, bytes, str | None], dict[str, Any]]
"""Loads a state, given its stored form and the digest of its large arrays."""


def key_columns(key: PhaseKey) -> tuple[int, str, int]:
    """Return the columns ``server_round, phase, call`` of a phase."""
    return key.server_round, key.phase.value, key.call


def phase_id(tx: sqlite3.Connection, key: PhaseKey) -> tuple[int, bytes | None]:
    """Return the number of a phase, and its closing set in stored form; None while it is open.

    Raises:
        RuntimeError: it was never opened.
    """
    row = tx.execute(
        "SELECT id, closed FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
        key_columns(key),
    ).fetchone()
    if row is None:
        raise RuntimeError(f"{key} was not opened: phases.open comes first")
    return row[0], row[1]


class PhaseQueries:
    """What is recorded of phases, asks, contributions and late replies."""

    def __init__(self, seal: Seal, load_state: LoadState) -> None:
        """Verify what is read with ``seal``."""
        self._seal = seal
        self._load_state = load_state
        self.late = LateTable(seal)
        """What came late, or a second time."""
        self.rows = PhaseRows(seal, self.late).rows
        """Returns the phases of rounds, for people."""

    def find(self, tx: sqlite3.Connection, key: PhaseKey) -> PhaseRecord | None:
        """Return all that is known of a phase; None if it was never opened."""
        found = self._planned(tx, key)
        if found is None:
            return None
        phase, plan, elapsed, closed = found
        return PhaseRecord(
            key,
            plan,
            elapsed,
            tuple(self.contributions(tx, phase)),
            None if closed is None else ClosedPhase.from_dict(self._seal.unpack(closed)),
            tuple(self.sums(tx, phase)),
        )

    def _planned(
        self, tx: sqlite3.Connection, key: PhaseKey
    ) -> tuple[int, Plan, float, bytes | None] | None:
        """Return a phase's number, plan, seconds and closing set; None if it was never opened."""
        row = tx.execute(
            "SELECT id, elapsed, plan, state, state_digest, closed FROM phases"
            " WHERE server_round = ? AND phase = ? AND call = ?",
            key_columns(key),
        ).fetchone()
        if row is None:
            return None
        phase, elapsed, plan, state, state_digest, closed = row
        if plan is None:
            raise _not_kept(key)
        state = self._load_state(tx, state, state_digest)
        return phase, self._plan(tx, phase, plan, state), elapsed, closed

    def closed(self, tx: sqlite3.Connection, key: PhaseKey) -> ClosedPhase | None:
        """Return how a phase was closed; None if it is open, or was never opened."""
        row = tx.execute(
            "SELECT closed FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
            key_columns(key),
        ).fetchone()
        stored = None if row is None else row[0]
        return None if stored is None else ClosedPhase.from_dict(self._seal.unpack(stored))

    def closed_unix_ms(self, tx: sqlite3.Connection, key: PhaseKey) -> int | None:
        """Return when a phase was closed, in Unix ms; None if it is open, or was never opened."""
        row = tx.execute(
            "SELECT closed_unix_ms FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
            key_columns(key),
        ).fetchone()
        return None if row is None else row[0]

    def opened_unix_ms(self, tx: sqlite3.Connection, key: PhaseKey) -> int:
        """Return when a phase was opened, in Unix ms; raises RuntimeError if it never was."""
        (at,) = tx.execute(
            "SELECT opened_unix_ms FROM phases WHERE id = ?", (phase_id(tx, key)[0],)
        ).fetchone()
        return int(at)

    def closed_calls(
        self, tx: sqlite3.Connection, server_round: int, phase: Phase
    ) -> list[PhaseKey]:
        """Return the closed phases of this kind in a round, in the order of opening."""
        rows = tx.execute(
            "SELECT call FROM phases WHERE server_round = ? AND phase = ? AND closed IS NOT NULL"
            " ORDER BY id",
            (server_round, phase.value),
        )
        return [PhaseKey(server_round, phase, call) for (call,) in rows]

    def left_open(self, tx: sqlite3.Connection) -> dict[str, tuple[PhaseKey, str]]:
        """Return phase and ask name, by task id, of the phases that were not closed."""
        rows = tx.execute(
            "SELECT server_round, phase, call, task_id, client_id FROM asks"
            " JOIN phases ON phases.id = asks.phase_id WHERE closed IS NULL AND settled = 0"
        )
        return {
            task_id: (PhaseKey(number, Phase(phase), call), ask)
            for number, phase, call, task_id, ask in rows
        }

    def unsettled(self, tx: sqlite3.Connection, phase: Phase) -> list[PhaseKey]:
        """Return the asks of streams that no checkpoint covers: those taken first, in order."""
        rows = tx.execute(
            "SELECT server_round, call FROM phases WHERE phase = ? AND settled = 0"
            " AND call >= ? AND call < ? AND plan IS NOT NULL"
            " ORDER BY closed IS NULL, closed_unix_ms, id",
            (phase.value, STREAM, DIRECT),
        )
        return [PhaseKey(number, phase, call) for number, call in rows]

    def elapsed(self, tx: sqlite3.Connection, key: PhaseKey) -> tuple[float, bool] | None:
        """Return for how long a phase was open, and whether it is; None if it was never opened."""
        row = tx.execute(
            "SELECT elapsed, closed IS NULL, plan IS NULL FROM phases"
            " WHERE server_round = ? AND phase = ? AND call = ?",
            key_columns(key),
        ).fetchone()
        if row is not None and row[2]:
            raise _not_kept(key)
        return None if row is None else (row[0], bool(row[1]))

    def plan(self, tx: sqlite3.Connection, key: PhaseKey) -> tuple[Plan, bool] | None:
        """Return the plan of a phase, and whether it is open; None if it was never opened."""
        found = self._planned(tx, key)
        return None if found is None else (found[1], found[3] is None)

    def orders(self, tx: sqlite3.Connection, key: PhaseKey) -> Mapping[str, tuple[str, ...]]:
        """Return the orders of a phase's plan, without reading its asks and state."""
        row = tx.execute(
            "SELECT plan FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
            key_columns(key),
        ).fetchone()
        if row is not None and row[0] is None:
            raise _not_kept(key)
        return {} if row is None else _orders(self._seal.unpack(row[0]))

    def last_closed(self, tx: sqlite3.Connection, phase: Phase) -> int:
        """Return the last round whose phase of this kind has closed; 0 if none has."""
        (last,) = tx.execute(
            "SELECT max(server_round) FROM phases WHERE phase = ? AND closed IS NOT NULL",
            (phase.value,),
        ).fetchone()
        return 0 if last is None else int(last)

    def most_asked(self, tx: sqlite3.Connection) -> int:
        """Return how many asks the phase with the most of them has."""
        (most,) = tx.execute("SELECT max(asked) FROM phases").fetchone()
        return 0 if most is None else int(most)

    def reply_files(
        self, tx: sqlite3.Connection, path: Callable[[str, BlobRef], Path]
    ) -> Iterable[Path]:
        """Yield the files of all replies that are kept."""
        for task_id, blob in tx.execute(
            "SELECT task_id, blob FROM contributions WHERE blob IS NOT NULL"
        ):
            yield path(task_id, ref_in(self._seal.unpack(blob)))
        for task_id, blob in tx.execute("SELECT task_id, blob FROM sums"):
            yield path(task_id, ref_in(self._seal.unpack(blob)))
        yield from self.late.files(tx, path)

    def _plan(self, tx: sqlite3.Connection, phase: int, stored: bytes, state: Any) -> Plan:
        policy = self._seal.unpack(stored)
        asks = tuple(
            PlannedAsk(client_id, task_id, self._seal.open(task), digest)
            for client_id, task_id, task, digest in tx.execute(
                "SELECT client_id, task_id, task, digest FROM asks WHERE phase_id = ? ORDER BY id",
                (phase,),
            )
        )
        return Plan(
            asks,
            policy["timeout"],
            Policy(policy["min_results"], policy["target_results"]),
            state,
            _orders(policy),
        )

    def sums(self, tx: sqlite3.Connection, phase: int) -> Iterable[RecordedSum]:
        """Yield the partial sums of phase number ``phase``, in the order of arrival."""
        for task_id, blob, size in tx.execute(
            "SELECT task_id, blob, size FROM sums WHERE phase_id = ? ORDER BY id", (phase,)
        ):
            yield RecordedSum(task_id, ref_in(self._seal.unpack(blob)), size)

    def contributions(self, tx: sqlite3.Connection, phase: int) -> Iterable[Contribution]:
        """Yield the answers in phase number ``phase``, in the order of arrival."""
        for (
            client_id,
            task_id,
            kind,
            reason,
            detail,
            reply,
            blob,
            size,
            order,
            course,
        ) in tx.execute(
            "SELECT client_id, task_id, kind, reason, detail, reply, blob, size, order_id, course"
            " FROM contributions WHERE phase_id = ? ORDER BY id",
            (phase,),
        ):
            yield Contribution(
                client_id,
                task_id,
                Outcome(kind),
                reason,
                detail,
                self._seal.open(reply),
                None if blob is None else ref_in(self._seal.unpack(blob)),
                size,
                order,
                course_in(self._seal, course, None),
            )


def _orders(plan: Mapping[str, Any]) -> Mapping[str, tuple[str, ...]]:
    """Return the orders in a stored plan; a phase without any, or of an older flmq, has none."""
    return {site: tuple(covers) for site, covers in plan.get("orders", {}).items()}


def _not_kept(key: PhaseKey) -> NotKept:
    return NotKept(
        f"{key}: its plan and replies were let go when the round had its checkpoint; "
        'start the job with replies kept ("all") where they are to stay'
    )
