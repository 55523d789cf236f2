"""The tables of phases: plans, contributions, closings, and what people read of them.

Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from flmq.common.phase import Phase
from flmq.journal.errors import NotKept
from flmq.journal.latetable import LateTable
from flmq.journal.records import (
    UNJUDGED,
    CarriedReply,
    ClosedPhase,
    Contribution,
    LateEntry,
    LateReply,
    PhaseKey,
    PhaseRecord,
    PhaseRow,
    Plan,
    PlannedAsk,
)
from flmq.journal.references import ref_in, ref_out
from flmq.journal.schema import Seal
from flmq.round import DIRECT, STREAM, LateReplyRef, Outcome, Policy, TaskOutcome
from flmq.wire import BlobRef

__all__ = ["PhaseTables"]

LoadState = Callable[[sqlite3.Connection, bytes, str | None], dict[str, Any]]
"""Loads a state, given its stored form and the digest of its large arrays."""


class PhaseTables:
    """Rows of phases, asks, contributions and late replies."""

    def __init__(self, seal: Seal, load_state: LoadState) -> None:
        """Verify what is read with ``seal``."""
        self._seal = seal
        self._load_state = load_state
        self.late = LateTable(seal)

    # -- writing -----------------------------------------------------------------------------

    def open(
        self,
        tx: sqlite3.Connection,
        key: PhaseKey,
        plan: Plan,
        state: tuple[bytes, str | None],
        now_ms: int,
    ) -> None:
        """Insert a phase; ``state`` is its plan's state in stored form."""
        policy = {
            "timeout": plan.timeout,
            "min_results": plan.policy.min_results,
            "target_results": plan.policy.target_results,
        }
        packed = self._seal.pack(policy, "plan")
        try:
            cursor = tx.execute(
                "INSERT INTO phases (server_round, phase, call, opened_unix_ms, asked, elapsed,"
                " settled, plan, state, state_digest) VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?, ?)",
                (*_columns(key), now_ms, len(plan.asks), packed, *state),
            )
        except sqlite3.IntegrityError as error:
            raise RuntimeError(f"{key} was opened before: find_phase knows it") from error
        tx.executemany(
            "INSERT INTO asks (phase_id, client_id, task_id, task, digest) VALUES (?, ?, ?, ?, ?)",
            [
                (
                    cursor.lastrowid,
                    ask.client_id,
                    ask.task_id,
                    self._seal.close(ask.task),
                    ask.model,
                )
                for ask in plan.asks
            ],
        )

    def tick(self, tx: sqlite3.Connection, key: PhaseKey, elapsed: float) -> None:
        """Record how many seconds the phase has been open; never decreases."""
        tx.execute(
            "UPDATE phases SET elapsed = max(elapsed, ?) WHERE id = ?", (elapsed, _id(tx, key)[0])
        )

    def contribute(self, tx: sqlite3.Connection, key: PhaseKey, what: Contribution) -> Outcome:
        """Insert a client's answer; return DUPLICATE or LATE if it does not count."""
        phase, closed = _id(tx, key)
        blob = None if what.blob is None else self._seal.pack(ref_out(what.blob), "blob")
        values = (
            phase,
            what.client_id,
            what.task_id,
            what.kind.value,
            what.reason,
            what.detail,
            self._seal.close(what.reply),
            blob,
            what.size,
        )
        known = tx.execute(
            "SELECT reason FROM contributions WHERE phase_id = ? AND client_id = ?", values[:2]
        ).fetchone()
        if known == (UNJUDGED,) and not closed:
            tx.execute("DELETE FROM contributions WHERE phase_id = ? AND client_id = ?", values[:2])
        elif known or closed:
            return Outcome.DUPLICATE if known else Outcome.LATE
        tx.execute(
            "INSERT INTO contributions (phase_id, client_id, task_id, kind, reason, detail, reply,"
            " blob, size) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        return what.kind

    def judge(
        self, tx: sqlite3.Connection, key: PhaseKey, client_id: str, kind: Outcome, reason: str
    ) -> None:
        """Store the verdict on an answer that was entered before it could be judged."""
        tx.execute(
            "UPDATE contributions SET kind = ?, reason = ?"
            " WHERE phase_id = ? AND client_id = ? AND reason = ?",
            (kind.value, reason, _id(tx, key)[0], client_id, UNJUDGED),
        )

    def close(
        self, tx: sqlite3.Connection, key: PhaseKey, closed: ClosedPhase, now_ms: int
    ) -> None:
        """Store the closing set."""
        phase, before = _id(tx, key)
        if before is not None:
            if self._closed_in(before) != closed:
                raise RuntimeError(f"{key} was closed before, in another way: that is final")
            return
        answered = {
            client_id
            for (client_id,) in tx.execute(
                "SELECT client_id FROM contributions WHERE phase_id = ? AND kind = ?",
                (phase, Outcome.ACCEPTED.value),
            )
        }
        missing = set(closed.accepted) - answered
        if missing:
            raise RuntimeError(
                f"{key}: the closing set holds {min(missing)}, whose reply was not journalled"
            )
        self.late.take(tx, phase, closed.carried)
        if key.is_streamed:
            now_ms = self._after_all(tx, now_ms)
        tx.execute(
            "UPDATE phases SET closed = ?, closed_unix_ms = ?, elapsed = max(elapsed, ?)"
            " WHERE id = ?",
            (self._seal.pack(closed.to_dict(), "closed"), now_ms, closed.seconds, phase),
        )

    def enter_late(self, tx: sqlite3.Connection, entry: LateEntry) -> Outcome:
        """Enter a late or duplicate reply; return its outcome.

        Raises:
            RuntimeError: it is to be kept for a later round, but its own has not closed: it could
                still count there.
        """
        phase, closed = _id(tx, entry.key)
        if entry.kept is not None and closed is None:
            raise RuntimeError(f"{entry.key} is open: nothing can be late to it")
        return self.late.enter(tx, phase, entry)

    def settle(
        self, tx: sqlite3.Connection, server_round: int, in_flight: Iterable[PhaseKey], keep: bool
    ) -> None:
        """Delete phases up to ``server_round`` but ``in_flight``; ``keep`` keeps their replies."""
        spared = [_id(tx, key)[0] for key in in_flight]
        phases = [
            phase
            for (phase,) in tx.execute(
                "SELECT id FROM phases WHERE settled = 0 AND server_round <= ?", (server_round,)
            )
            if phase not in spared
        ]
        tx.executemany("UPDATE phases SET settled = 1 WHERE id = ?", [(p,) for p in phases])
        if keep:
            return
        self.late.release(tx, phases)
        for phase in phases:
            tx.execute("DELETE FROM asks WHERE phase_id = ?", (phase,))
            tx.execute("DELETE FROM contributions WHERE phase_id = ?", (phase,))
            tx.execute(
                "UPDATE phases SET plan = NULL, state = NULL, state_digest = NULL WHERE id = ?",
                (phase,),
            )

    # -- reading -----------------------------------------------------------------------------

    def find(self, tx: sqlite3.Connection, key: PhaseKey) -> PhaseRecord | None:
        """Return all that is known of a phase; None if it was never opened."""
        row = tx.execute(
            "SELECT id, elapsed, plan, state, state_digest, closed FROM phases"
            " WHERE server_round = ? AND phase = ? AND call = ?",
            _columns(key),
        ).fetchone()
        if row is None:
            return None
        phase, elapsed, plan, state, state_digest, closed = row
        if plan is None:
            raise NotKept(
                f"{key}: its plan and replies were let go when the round had its checkpoint; "
                'start the job with replies kept ("all") where they are to stay'
            )
        return PhaseRecord(
            key,
            self._plan(tx, phase, plan, self._load_state(tx, state, state_digest)),
            elapsed,
            tuple(self._contributions(tx, phase)),
            None if closed is None else self._closed_in(closed),
        )

    def closed(self, tx: sqlite3.Connection, key: PhaseKey) -> ClosedPhase | None:
        """Return how a phase was closed; None if it is open, or was never opened."""
        row = tx.execute(
            "SELECT closed FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
            _columns(key),
        ).fetchone()
        return None if row is None or row[0] is None else self._closed_in(row[0])

    def closed_unix_ms(self, tx: sqlite3.Connection, key: PhaseKey) -> int | None:
        """Return when a phase was closed, in Unix ms; None if it is open, or was never opened."""
        row = tx.execute(
            "SELECT closed_unix_ms FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
            _columns(key),
        ).fetchone()
        return None if row is None else row[0]

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

    def left_open(self, tx: sqlite3.Connection) -> list[PhaseKey]:
        """Return the phases that were opened and not closed, in the order of opening."""
        rows = tx.execute(
            "SELECT server_round, phase, call FROM phases WHERE closed IS NULL AND settled = 0"
            " AND plan IS NOT NULL ORDER BY id"
        )
        return [PhaseKey(number, Phase(phase), call) for number, phase, call in rows]

    def unsettled(self, tx: sqlite3.Connection, phase: Phase) -> list[PhaseKey]:
        """Return the asks of streams that no checkpoint covers: those taken first, in order."""
        rows = tx.execute(
            "SELECT server_round, call FROM phases WHERE phase = ? AND settled = 0"
            " AND call >= ? AND call < ? AND plan IS NOT NULL"
            " ORDER BY closed IS NULL, closed_unix_ms, id",
            (phase.value, STREAM, DIRECT),
        )
        return [PhaseKey(number, phase, call) for number, call in rows]

    def answered_late(self, tx: sqlite3.Connection, key: PhaseKey) -> frozenset[str]:
        """Return the clients that answered late in a phase."""
        return self.late.answered(tx, _id(tx, key)[0])

    def last_closed(self, tx: sqlite3.Connection, phase: Phase) -> int:
        """Return the last round whose phase of this kind has closed; 0 if none has."""
        (last,) = tx.execute(
            "SELECT max(server_round) FROM phases WHERE phase = ? AND closed IS NOT NULL",
            (phase.value,),
        ).fetchone()
        return 0 if last is None else int(last)

    def carried_into(self, tx: sqlite3.Connection, key: PhaseKey) -> list[CarriedReply]:
        """Return the late replies that count in a phase, in the order of client ids."""
        return list(self.late.into(tx, _id(tx, key)[0]))

    def reply_files(
        self, tx: sqlite3.Connection, path: Callable[[str, BlobRef], Path]
    ) -> Iterable[Path]:
        """Yield the files of all replies that are kept."""
        for task_id, blob in tx.execute(
            "SELECT task_id, blob FROM contributions WHERE blob IS NOT NULL"
        ):
            yield path(task_id, ref_in(self._seal.unpack(blob)))
        yield from self.late.files(tx, path)

    def rows(self, tx: sqlite3.Connection) -> dict[int, list[PhaseRow]]:
        """Return every phase by round, in the order of opening."""
        late = self.late.by_phase(tx)
        rounds: dict[int, list[PhaseRow]] = {}
        for row in tx.execute(
            "SELECT id, server_round, phase, call, asked, opened_unix_ms, elapsed, closed"
            " FROM phases ORDER BY id"
        ).fetchall():
            rounds.setdefault(row[1], []).append(self._row(tx, row, late.get(row[0], [])))
        return rounds

    def _after_all(self, tx: sqlite3.Connection, now_ms: int) -> int:
        """Now, or just after the last answer taken: those of a stream have an order."""
        query = "SELECT max(closed_unix_ms) FROM phases WHERE settled = 0 AND call BETWEEN ? AND ?"
        (last,) = tx.execute(query, (STREAM, DIRECT - 1)).fetchone()
        return now_ms if last is None else max(now_ms, last + 1)

    def _row(self, tx: sqlite3.Connection, row: Any, late: list[LateReply]) -> PhaseRow:
        id_, _, phase, call, asked, opened, elapsed, stored = row
        if stored is None:
            so_far = [
                TaskOutcome(c, Outcome(kind), reason)
                for c, kind, reason in tx.execute(
                    "SELECT client_id, kind, reason FROM contributions WHERE phase_id = ?"
                    " ORDER BY client_id",
                    (id_,),
                )
            ]
            closed = ClosedPhase("", (), tuple(so_far), elapsed)
        else:
            closed = self._closed_in(stored)
        return PhaseRow(
            Phase(phase),
            call,
            asked,
            opened,
            stored is None,
            closed.reason,
            closed.outcomes,
            closed.seconds,
            closed.bytes_down,
            closed.bytes_up,
            tuple(late),
            len(closed.carried),
        )

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
        )

    def _contributions(self, tx: sqlite3.Connection, phase: int) -> Iterable[Contribution]:
        for client_id, task_id, kind, reason, detail, reply, blob, size in tx.execute(
            "SELECT client_id, task_id, kind, reason, detail, reply, blob, size"
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
            )

    def _closed_in(self, stored: bytes) -> ClosedPhase:
        values = self._seal.unpack(stored)
        outcomes = tuple(
            TaskOutcome(c, Outcome(word), why) for c, word, why in values.pop("outcomes")
        )
        accepted = tuple(values.pop("accepted"))
        # Older records, from before late replies could count, have none.
        carried = tuple(LateReplyRef(*each) for each in values.pop("carried", ()))
        return ClosedPhase(accepted=accepted, outcomes=outcomes, carried=carried, **values)


def _id(tx: sqlite3.Connection, key: PhaseKey) -> tuple[int, bytes | None]:
    """Return the number of the phase, and how it was closed."""
    row = tx.execute(
        "SELECT id, closed FROM phases WHERE server_round = ? AND phase = ? AND call = ?",
        _columns(key),
    ).fetchone()
    if row is None:
        raise RuntimeError(f"{key} was not opened: open_phase comes first")
    return row[0], row[1]


def _columns(key: PhaseKey) -> tuple[int, str, int]:
    return key.server_round, key.phase.value, key.call
