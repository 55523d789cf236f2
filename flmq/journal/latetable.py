"""The table of replies that came after their phase had closed, or a second time.

A reply is entered once, whatever is delivered again: the first of a task is LATE, later ones are
DUPLICATE. One that is to count in a later round is kept, bytes included, until that round is over.
Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from flmq.common.phase import Phase
from flmq.journal.parts import Part, Whose, decode_parts, encode_parts
from flmq.journal.records import CarriedReply, Contribution, LateEntry, LateReply, PhaseKey
from flmq.journal.references import ref_in, ref_out
from flmq.journal.schema import Seal
from flmq.round import LateReplyRef, Outcome
from flmq.wire import BlobRef

__all__ = ["LateTable"]

_KEPT = (
    "SELECT asked.server_round, asked.phase, asked.call, client_id, task_id, note, seconds, reply,"
    " blob, size FROM late JOIN phases AS asked ON asked.id = late.phase_id"
    " WHERE late.reply IS NOT NULL AND"
)


class LateTable:
    """Rows of late and duplicate replies."""

    def __init__(self, seal: Seal) -> None:
        """Verify what is read with ``seal``."""
        self._seal = seal

    def enter(self, tx: sqlite3.Connection, phase: int, entry: LateEntry) -> Outcome:
        """Enter a reply to phase number ``phase``; return its outcome (DUPLICATE if the second)."""
        if entry.outcome is Outcome.LATE and not self.has_answered(tx, phase, entry.client_id):
            self._add(tx, phase, entry)
            return Outcome.LATE
        tx.execute(
            "INSERT INTO late (phase_id, client_id, word, seconds, times, note, part)"
            " VALUES (?, ?, ?, ?, 1, '', ?) ON CONFLICT (phase_id, client_id, word) DO UPDATE"
            " SET seconds = excluded.seconds, times = times + 1, part = excluded.part",
            (
                phase,
                entry.client_id,
                Outcome.DUPLICATE.value,
                entry.seconds,
                self._part_out(entry.part),
            ),
        )
        return Outcome.DUPLICATE

    def take(self, tx: sqlite3.Connection, phase: int, carried: Iterable[LateReplyRef]) -> None:
        """Mark replies as counting in phase number ``phase``, whose closing set is being entered.

        Raises:
            RuntimeError: one does not exist, or counts in another phase.
        """
        for each in carried:
            done = tx.execute(
                "UPDATE late SET into_phase = ? WHERE task_id = ? AND client_id = ?"
                " AND reply IS NOT NULL AND into_phase IS NULL",
                (phase, each.task_id, each.client_id),
            )
            if done.rowcount != 1:
                raise RuntimeError(
                    f"the late reply of {each.client_id} to round {each.server_round} was not "
                    "journalled, or counts elsewhere"
                )

    def waiting(self, tx: sqlite3.Connection) -> Iterator[CarriedReply]:
        """Yield late replies that are kept for a later round and not taken yet."""
        return self._kept(tx, "into_phase IS NULL", ())

    def into(self, tx: sqlite3.Connection, phase: int) -> Iterator[CarriedReply]:
        """Yield late replies that count in phase number ``phase``, as far as they are kept."""
        return self._kept(tx, "into_phase = ?", (phase,))

    def release(self, tx: sqlite3.Connection, phases: Iterable[int]) -> None:
        """Delete the replies that counted in these phases, keeping the fact that they did."""
        tx.executemany(
            "UPDATE late SET reply = NULL, blob = NULL WHERE into_phase = ?",
            [(phase,) for phase in phases],
        )

    def files(self, tx: sqlite3.Connection, path: Callable[[str, BlobRef], Path]) -> Iterator[Path]:
        """Yield the files of the replies that are kept."""
        for task_id, blob in tx.execute("SELECT task_id, blob FROM late WHERE blob IS NOT NULL"):
            yield path(task_id, ref_in(self._seal.unpack(blob)))

    def by_phase(
        self, tx: sqlite3.Connection, since: int, until: int, *, parts: bool = False
    ) -> dict[int, list[LateReply]]:
        """Return late and duplicate replies, for people, by number of the phase that had asked.

        Of the rounds from ``since`` to ``until``; ``parts``: with what their clients did.
        """
        late: dict[int, list[LateReply]] = {}
        for phase, client_id, word, seconds, times, note, kept, into, stored in tx.execute(
            "SELECT late.phase_id, client_id, word, seconds, times, note, reply IS NOT NULL,"
            " taken.server_round, CASE WHEN ? THEN part END FROM phases AS asked"
            " JOIN late ON late.phase_id = asked.id"
            " LEFT JOIN phases AS taken ON taken.id = into_phase"
            " WHERE asked.server_round BETWEEN ? AND ?"
            " ORDER BY late.phase_id, client_id, word",
            (parts, since, until),
        ):
            waits = bool(kept) and into is None
            part = self._part_in(stored, (client_id, Outcome(word), note))
            found = LateReply(client_id, Outcome(word), seconds, times, note, into, waits, part)
            late.setdefault(phase, []).append(found)
        return late

    def _part_out(self, part: Part | None) -> bytes | None:
        return None if part is None else self._seal.close(encode_parts([part]))

    def _part_in(self, stored: bytes | None, whose: Whose) -> Part | None:
        return None if stored is None else decode_parts(self._seal.open(stored), [whose])[0]

    def answered(self, tx: sqlite3.Connection, phase: int) -> frozenset[str]:
        """Return the clients that answered phase number ``phase`` late."""
        rows = tx.execute(
            "SELECT client_id FROM late WHERE phase_id = ? AND word = ?",
            (phase, Outcome.LATE.value),
        )
        return frozenset(client_id for (client_id,) in rows)

    def has_answered(self, tx: sqlite3.Connection, phase: int, client_id: str) -> bool:
        """Return whether this client answered phase number ``phase`` late."""
        row = tx.execute(
            "SELECT 1 FROM late WHERE phase_id = ? AND client_id = ? AND word = ?",
            (phase, client_id, Outcome.LATE.value),
        ).fetchone()
        return row is not None

    def _add(self, tx: sqlite3.Connection, phase: int, entry: LateEntry) -> None:
        kept, reply, blob = entry.kept, None, None
        if kept is not None:
            reply = self._seal.close(kept.reply)
            blob = None if kept.blob is None else self._seal.pack(ref_out(kept.blob), "blob")
        tx.execute(
            "INSERT INTO late (phase_id, client_id, word, seconds, times, note, task_id, reply,"
            " blob, size, part) VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?, ?, ?)",
            (
                phase,
                entry.client_id,
                entry.outcome.value,
                entry.seconds,
                entry.note,
                "" if kept is None else kept.task_id,
                reply,
                blob,
                0 if kept is None else kept.size,
                self._part_out(entry.part),
            ),
        )

    def _kept(
        self, tx: sqlite3.Connection, which: str, values: tuple[int, ...]
    ) -> Iterator[CarriedReply]:
        order = "ORDER BY client_id, asked.server_round, task_id"
        for number, phase, call, client_id, task_id, note, seconds, reply, blob, size in tx.execute(
            f"{_KEPT} {which} {order}", values
        ):
            yield CarriedReply(
                PhaseKey(number, Phase(phase), call),
                seconds,
                Contribution(
                    client_id,
                    task_id,
                    Outcome.LATE,
                    note,
                    reply=self._seal.open(reply),
                    blob=None if blob is None else ref_in(self._seal.unpack(blob)),
                    size=size,
                ),
            )
