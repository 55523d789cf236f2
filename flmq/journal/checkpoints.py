"""The table of checkpoints: what a run resumes from, and which models stay on disk.

Each method runs within a transaction of its caller.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flmq.journal.records import KeepPolicy
from flmq.journal.schema import Seal

__all__ = ["CheckpointTable", "StoredCheckpoint"]


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A row of the table; the parameters are in the blob ``digest``."""

    server_round: int
    at_unix_ms: int
    summary: bytes
    digest: str
    history: bytes
    state: bytes
    state_digest: str | None


class CheckpointTable:
    """Rows of checkpoints: all keep their summary, some also the data to resume from."""

    def __init__(self, seal: Seal) -> None:
        """Verify what is read with ``seal``."""
        self._seal = seal

    def add(self, tx: sqlite3.Connection, row: StoredCheckpoint) -> None:
        """Insert a checkpoint, replacing one of the same round.

        Raises:
            ValueError: there is one of a later round.
        """
        last = self.last_round(tx)
        if last is not None and last > row.server_round:
            raise ValueError(f"a checkpoint of round {row.server_round} after one of round {last}")
        tx.execute(
            "INSERT OR REPLACE INTO checkpoints (server_round, at_unix_ms, summary, digest,"
            " history, state, state_digest) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                row.server_round,
                row.at_unix_ms,
                row.summary,
                row.digest,
                row.history,
                row.state,
                row.state_digest,
            ),
        )

    def last(self, tx: sqlite3.Connection) -> StoredCheckpoint | None:
        """Return the checkpoint of the latest round; None if there are none."""
        row = tx.execute(
            "SELECT server_round, at_unix_ms, summary, digest, history, state, state_digest"
            " FROM checkpoints ORDER BY server_round DESC LIMIT 1"
        ).fetchone()
        return None if row is None else StoredCheckpoint(*row)

    def last_round(self, tx: sqlite3.Connection) -> int | None:
        """Return the latest round that has a checkpoint; None if none has."""
        (last,) = tx.execute("SELECT max(server_round) FROM checkpoints").fetchone()
        return None if last is None else int(last)

    def summaries(
        self, tx: sqlite3.Connection, since: int, until: int
    ) -> dict[int, dict[str, Any]]:
        """Return the summary of each checkpoint of rounds ``since`` to ``until``, by round.

        Whether or not its model is kept.
        """
        return {
            server_round: self._seal.unpack(summary)
            for server_round, summary in tx.execute(
                "SELECT server_round, summary FROM checkpoints WHERE server_round BETWEEN ? AND ?"
                " ORDER BY server_round",
                (since, until),
            )
        }

    def kept(
        self, tx: sqlite3.Connection, policy: KeepPolicy
    ) -> list[tuple[int, str, int, dict[str, Any], tuple[str, ...]]]:
        """Return round, digest, time, summary, and the reasons for keeping, of kept models."""
        rows = [
            (server_round, digest, at, self._seal.unpack(summary))
            for server_round, digest, at, summary in tx.execute(
                "SELECT server_round, digest, at_unix_ms, summary FROM checkpoints"
                " WHERE digest IS NOT NULL ORDER BY server_round"
            )
        ]
        reasons = _reasons({row[0]: row[3] for row in rows}, policy)
        return [(*row, reasons[row[0]]) for row in rows]

    def apply(self, tx: sqlite3.Connection, policy: KeepPolicy) -> None:
        """Drop the models that ``policy`` does not keep."""
        for server_round, _, _, _, kept_as in self.kept(tx, policy):
            if not kept_as:
                tx.execute(
                    "UPDATE checkpoints SET digest = NULL, history = NULL, state = NULL,"
                    " state_digest = NULL WHERE server_round = ?",
                    (server_round,),
                )


def _reasons(
    summaries: Mapping[int, Mapping[str, Any]], policy: KeepPolicy
) -> dict[int, tuple[str, ...]]:
    """Return why each of these rounds is kept; an empty tuple means that it is not."""
    last = max(summaries, default=None)
    scores = {number: _score(summary, policy.best) for number, summary in summaries.items()}
    # On a tie the first wins, so that the best never changes by a tie.
    best = max(scores, key=scores.__getitem__, default=None)
    if best is not None and scores[best] == -math.inf:
        best = None
    return {
        number: tuple(
            reason
            for reason, holds in (
                ("last", number == last),
                ("best", number == best),
                ("every", policy.every is not None and number % policy.every == 0),
            )
            if holds
        )
        for number in summaries
    }


def _score(summary: Mapping[str, Any], best: str | None) -> float:
    """Return how good a round is by its summary: higher is better; -inf if unknown."""
    if best is None:
        return -math.inf
    if best == "loss":
        value, sign = summary.get("loss"), -1.0
    else:
        value, sign = (summary.get("metrics") or {}).get(best), 1.0
    if not isinstance(value, int | float) or math.isnan(value):
        return -math.inf
    return sign * value
