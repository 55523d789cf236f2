"""Write the tables of phases: plans, contributions, closings.

Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence

from flmq.journal.courses import course_out
from flmq.journal.latetable import LateTable
from flmq.journal.parts import Part, encode_parts
from flmq.journal.phase_queries import key_columns, phase_id
from flmq.journal.phase_rows import head_of
from flmq.journal.records import (
    UNJUDGED,
    ClosedPhase,
    Contribution,
    LateEntry,
    PhaseKey,
    Plan,
    RecordedSum,
)
from flmq.journal.references import ref_out
from flmq.journal.schema import Seal
from flmq.journal.state import StateValue
from flmq.round import DIRECT, STREAM, Outcome

__all__ = ["PhaseTables"]


class PhaseTables:
    """Rows of phases, asks, contributions and late replies, to be written."""

    def __init__(self, seal: Seal) -> None:
        """Store records with a digest from ``seal``."""
        self._seal = seal
        self._late = LateTable(seal)

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
            **({"orders": {s: list(of) for s, of in plan.orders.items()}} if plan.orders else {}),
        }
        packed = self._seal.pack(policy, "plan")
        try:
            cursor = tx.execute(
                "INSERT INTO phases (server_round, phase, call, opened_unix_ms, asked, elapsed,"
                " settled, plan, state, state_digest) VALUES (?, ?, ?, ?, ?, 0, 0, ?, ?, ?)",
                (*key_columns(key), now_ms, len(plan.asks), packed, *state),
            )
        except sqlite3.IntegrityError as error:
            raise RuntimeError(f"{key} was opened before: phases.find returns it") from error
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
            "UPDATE phases SET elapsed = max(elapsed, ?) WHERE id = ?",
            (elapsed, phase_id(tx, key)[0]),
        )

    def contribute(self, tx: sqlite3.Connection, key: PhaseKey, what: Contribution) -> Outcome:
        """Insert a client's answer; return DUPLICATE or LATE if it does not count."""
        phase, closed = phase_id(tx, key)
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
            what.order_id,
            course_out(self._seal, what.times),
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
            " blob, size, order_id, course) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            values,
        )
        return what.kind

    def add_sum(self, tx: sqlite3.Connection, key: PhaseKey, what: RecordedSum) -> None:
        """Insert a partial sum, whose answers are entered in the same transaction.

        Raises:
            RuntimeError: its phase is closed: its answers are late.
        """
        phase, closed = phase_id(tx, key)
        if closed is not None:
            raise RuntimeError(f"{key} is closed: no partial sum counts in it any more")
        blob = self._seal.pack(ref_out(what.blob), "blob")
        tx.execute(
            "INSERT INTO sums (phase_id, task_id, blob, size) VALUES (?, ?, ?, ?)",
            (phase, what.order_id, blob, what.size),
        )

    def judge(
        self, tx: sqlite3.Connection, key: PhaseKey, client_id: str, kind: Outcome, reason: str
    ) -> None:
        """Store the verdict on an answer that was entered before it could be judged."""
        tx.execute(
            "UPDATE contributions SET kind = ?, reason = ?"
            " WHERE phase_id = ? AND client_id = ? AND reason = ?",
            (kind.value, reason, phase_id(tx, key)[0], client_id, UNJUDGED),
        )

    def close(
        self,
        tx: sqlite3.Connection,
        key: PhaseKey,
        closed: ClosedPhase,
        now_ms: int,
        parts: Sequence[Part],
        about: Mapping[str, StateValue],
    ) -> None:
        """Store the closing set, and what each client did: ``parts``, in the order of outcomes."""
        phase, before = phase_id(tx, key)
        if before is not None:
            if ClosedPhase.from_dict(self._seal.unpack(before)) != closed:
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
        self._late.take(tx, phase, closed.carried)
        if key.is_streamed:
            now_ms = _after_all(tx, now_ms)
        (plan,) = tx.execute("SELECT plan FROM phases WHERE id = ?", (phase,)).fetchone()
        timeout = self._seal.unpack(plan)["timeout"]
        tx.execute(
            "UPDATE phases SET closed = ?, closed_unix_ms = ?, elapsed = max(elapsed, ?), head = ?"
            " WHERE id = ?",
            (
                self._seal.pack(closed.to_dict(), "closed"),
                now_ms,
                closed.seconds,
                self._seal.pack(head_of(closed, timeout, about), "head"),
                phase,
            ),
        )
        if parts:
            stored = self._seal.close(encode_parts(parts))
            tx.execute("INSERT INTO parts (phase_id, parts) VALUES (?, ?)", (phase, stored))

    def enter_late(self, tx: sqlite3.Connection, entry: LateEntry) -> Outcome:
        """Enter a late or duplicate reply; return its outcome.

        Raises:
            RuntimeError: it is to be kept for a later round, but its own has not closed: it could
                still count there.
        """
        phase, closed = phase_id(tx, entry.key)
        if entry.kept is not None and closed is None:
            raise RuntimeError(f"{entry.key} is open: nothing can be late to it")
        return self._late.enter(tx, phase, entry)

    def settle(
        self, tx: sqlite3.Connection, server_round: int, in_flight: Iterable[PhaseKey], keep: bool
    ) -> None:
        """Delete phases up to ``server_round`` but ``in_flight``; ``keep`` keeps their replies."""
        spared = [phase_id(tx, key)[0] for key in in_flight]
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
        self._late.release(tx, phases)
        for phase in phases:
            tx.execute("DELETE FROM asks WHERE phase_id = ?", (phase,))
            tx.execute("DELETE FROM contributions WHERE phase_id = ?", (phase,))
            tx.execute("DELETE FROM sums WHERE phase_id = ?", (phase,))
            tx.execute(
                "UPDATE phases SET plan = NULL, state = NULL, state_digest = NULL WHERE id = ?",
                (phase,),
            )


def _after_all(tx: sqlite3.Connection, now_ms: int) -> int:
    """Return now, or just after the last answer taken: those of a stream have an order."""
    query = "SELECT max(closed_unix_ms) FROM phases WHERE settled = 0 AND call BETWEEN ? AND ?"
    (last,) = tx.execute(query, (STREAM, DIRECT - 1)).fetchone()
    return now_ms if last is None else max(now_ms, last + 1)
