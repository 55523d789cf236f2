"""Read phases for people: as a whole, or only what is the same for all their asks.

Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

from flmq.common.phase import Phase
from flmq.journal.courses import course_in
from flmq.journal.latetable import LateTable
from flmq.journal.parts import Part, decode_parts, few_metrics
from flmq.journal.records import ClosedPhase, LateReply, PhaseRow
from flmq.journal.schema import Seal
from flmq.round import DIRECT, STREAM, Outcome, TaskOutcome
from flmq.wire import Failure, Reply, decode

__all__ = ["LAST_ROUND", "Detail", "PhaseRows", "head_of"]

LAST_ROUND = 2**62


@dataclass(frozen=True, slots=True)
class Detail:
    """What is read of rounds beside what is the same for all asks of a phase."""

    outcomes: bool = True
    parts: bool = False


def head_of(closed: ClosedPhase, timeout: float | None, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of a closing set is the same for all asks, to be read without them."""
    counts = Counter(outcome.outcome.value for outcome in closed.outcomes)
    return {
        "reason": closed.reason,
        "seconds": closed.seconds,
        "bytes_down": closed.bytes_down,
        "bytes_up": closed.bytes_up,
        "carried": len(closed.carried),
        "counts": dict(counts),
        "timeout": timeout,
        "about": dict(about),
    }


class PhaseRows:
    """The phases of rounds, for people."""

    def __init__(self, seal: Seal, late: LateTable) -> None:
        """Verify what is read with ``seal``."""
        self._seal = seal
        self._late = late

    def rows(
        self,
        tx: sqlite3.Connection,
        since: int = 0,
        until: int = LAST_ROUND,
        detail: Detail = Detail(),
    ) -> dict[int, list[PhaseRow]]:
        """Return the phases of rounds ``since`` to ``until`` by round, in the order of opening.

        The asks of a stream, each a phase of its own, are one phase of their round here.
        """
        late = self._late.by_phase(tx, since, until, parts=detail.parts)
        rounds: dict[int, list[PhaseRow]] = {}
        for row in tx.execute(
            "SELECT id, server_round, phase, call, asked, opened_unix_ms, elapsed, closed_unix_ms,"
            " closed IS NULL, head FROM phases WHERE server_round BETWEEN ? AND ? ORDER BY id",
            (since, until),
        ).fetchall():
            made = self._row(tx, row, late.get(row[0], []), detail)
            rounds.setdefault(row[1], []).append(made)
        return {number: _with_stream(rows) for number, rows in rounds.items()}

    def _row(
        self, tx: sqlite3.Connection, row: Any, late: list[LateReply], detail: Detail
    ) -> PhaseRow:
        id_, _, phase, call, asked, opened, _, closed_at, is_open, stored = row
        if is_open:
            return self._open_row(tx, row, late, detail)
        head = {} if stored is None else self._seal.unpack(stored)
        outcomes: tuple[TaskOutcome, ...] = ()
        if detail.outcomes or detail.parts or stored is None:
            closed = ClosedPhase.from_dict(self._seal.unpack(self._closed(tx, id_)))
            head, outcomes = head or head_of(closed, None, {}), closed.outcomes
        parts: tuple[Part, ...] = ()
        if detail.parts:
            parts = self._parts(tx, id_, outcomes)
        return PhaseRow(
            Phase(phase),
            call,
            asked,
            opened,
            False,
            head["reason"],
            outcomes if detail.outcomes else (),
            head["seconds"],
            head["bytes_down"],
            head["bytes_up"],
            tuple(late),
            head["carried"],
            {Outcome(word): count for word, count in head["counts"].items()},
            closed_at,
            head["timeout"],
            head["about"],
            parts,
        )

    def _open_row(
        self, tx: sqlite3.Connection, row: Any, late: list[LateReply], detail: Detail
    ) -> PhaseRow:
        """Return a phase that is open with what has come so far."""
        id_, _, phase, call, asked, opened, elapsed, *_ = row
        so_far = tuple(
            TaskOutcome(client, Outcome(kind), reason)
            for client, kind, reason in tx.execute(
                "SELECT client_id, kind, reason FROM contributions WHERE phase_id = ?"
                " ORDER BY client_id",
                (id_,),
            )
        )
        (plan,) = tx.execute("SELECT plan FROM phases WHERE id = ?", (id_,)).fetchone()
        return PhaseRow(
            Phase(phase),
            call,
            asked,
            opened,
            True,
            "",
            so_far if detail.outcomes else (),
            elapsed,
            0,
            0,
            tuple(late),
            counts=Counter(each.outcome for each in so_far),
            timeout=None if plan is None else self._seal.unpack(plan)["timeout"],
            parts=self._parts_so_far(tx, id_, opened) if detail.parts else (),
        )

    def _closed(self, tx: sqlite3.Connection, id_: int) -> bytes:
        (stored,) = tx.execute("SELECT closed FROM phases WHERE id = ?", (id_,)).fetchone()
        return cast("bytes", stored)

    def _parts(
        self, tx: sqlite3.Connection, id_: int, outcomes: tuple[TaskOutcome, ...]
    ) -> tuple[Part, ...]:
        row = tx.execute("SELECT parts FROM parts WHERE phase_id = ?", (id_,)).fetchone()
        if row is None:
            return ()
        whose = [(each.client_id, each.outcome, each.reason) for each in outcomes]
        return decode_parts(self._seal.open(row[0]), whose)

    def _parts_so_far(self, tx: sqlite3.Connection, id_: int, opened: int) -> tuple[Part, ...]:
        """Return the parts of all that were asked in an open phase: those that came, and others."""
        parts = {
            ask: Part(ask, None)
            for (ask,) in tx.execute("SELECT client_id FROM asks WHERE phase_id = ?", (id_,))
        }
        for ask, kind, reason, size, encoded, course in tx.execute(
            "SELECT client_id, kind, reason, size, reply, course FROM contributions"
            " WHERE phase_id = ?",
            (id_,),
        ):
            reply = cast("Reply", decode(self._seal.open(encoded), our_own=True))
            times = course_in(self._seal, course, reply.times)
            received = None if times is None else times.received_ms
            accepted = kind == Outcome.ACCEPTED.value
            metrics = getattr(reply.res, "metrics", {}) if accepted else {}
            kept, left_out = few_metrics(metrics)
            parts[ask] = Part(
                ask,
                Outcome(kind),
                reason,
                reply.res.traceback_tail if isinstance(reply.res, Failure) else "",
                None if received is None else max(0, received - opened) / 1000,
                getattr(reply.res, "num_examples", None),
                size,
                kept,
                left_out,
                times,
            )
        return tuple(part for _, part in sorted(parts.items()))


def _with_stream(rows: list[PhaseRow]) -> list[PhaseRow]:
    """Return a round's phases, with the asks of a stream, which are a phase each, as one phase."""
    asks = [row for row in rows if STREAM <= row.call < DIRECT]
    if not asks:
        return rows
    first = asks[0]
    counts = Counter[Outcome]()
    for row in asks:
        counts.update(row.counts)
    closed = [row.closed_unix_ms for row in asks]
    whole = replace(
        first,
        call=STREAM,
        asked=sum(row.asked for row in asks),
        open=any(row.open for row in asks),
        reason=first.reason if len(asks) == 1 else "asked one by one",
        outcomes=tuple(outcome for row in asks for outcome in row.outcomes),
        seconds=max(row.seconds for row in asks),
        bytes_down=sum(row.bytes_down for row in asks),
        bytes_up=sum(row.bytes_up for row in asks),
        late=tuple(late for row in asks for late in row.late),
        counts=counts,
        closed_unix_ms=None if None in closed else max(at for at in closed if at is not None),
        about=first.about if len(asks) == 1 else {},
        parts=tuple(part for row in asks for part in row.parts),
    )
    others = [row for row in rows if not STREAM <= row.call < DIRECT]
    return [whole, *others]
