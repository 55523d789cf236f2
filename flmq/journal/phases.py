"""A run's phases and their replies, in its journal: `Journal.phases`.

The server writes a phase's plan before its tasks are published, each reply before it is
acknowledged, and the closing set before it is aggregated.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from flmq.common.phase import Phase
from flmq.journal.blob_store import BlobStore, state_digests
from flmq.journal.database import Database
from flmq.journal.fence import Fence
from flmq.journal.phase_queries import PhaseQueries, phase_id
from flmq.journal.phasetables import PhaseTables
from flmq.journal.records import (
    CarriedReply,
    ClosedPhase,
    Contribution,
    LateEntry,
    Part,
    PhaseKey,
    PhaseRecord,
    Plan,
    RecordedSum,
)
from flmq.journal.state import StateValue
from flmq.round import Outcome

__all__ = ["PhaseReader", "PhaseWriter"]

_Found = TypeVar("_Found")


class PhaseReader:
    """What is recorded of a run's phases, whoever is in charge of it. Thread-safe.

    Every method raises `JournalDamaged` if a record does not hold what was stored.
    """

    def __init__(self, database: Database, queries: PhaseQueries) -> None:
        """Read ``database`` by ``queries``, a transaction each."""
        self._db = database
        self._queries = queries

    def find(self, key: PhaseKey) -> PhaseRecord | None:
        """Return all that is recorded of a phase; None if it was never opened.

        Raises:
            NotKept: its round is over, and its plan and replies were deleted.
        """
        with self._db.reading() as tx:
            return self._queries.find(tx, key)

    def closed(self, key: PhaseKey) -> ClosedPhase | None:
        """Return how a phase was closed, without plan and replies; None if it is not closed."""
        with self._db.reading() as tx:
            return self._queries.closed(tx, key)

    def closed_calls(self, server_round: int, phase: Phase) -> list[PhaseKey]:
        """Return the closed phases of this kind in a round, in the order of opening."""
        with self._db.reading() as tx:
            return self._queries.closed_calls(tx, server_round, phase)

    def last_closed(self, phase: Phase) -> int:
        """Return the last round whose phase of this kind has closed; 0 if none has."""
        with self._db.reading() as tx:
            return self._queries.last_closed(tx, phase)

    def most_asked(self) -> int:
        """Return how many asks the phase with the most of them has."""
        with self._db.reading() as tx:
            return self._queries.most_asked(tx)

    def left_open(self) -> dict[str, tuple[PhaseKey, str]]:
        """Return phase and ask name, by task id, of the phases that were not closed."""
        with self._db.reading() as tx:
            return self._queries.left_open(tx)

    def unsettled(self, phase: Phase) -> list[PhaseKey]:
        """Return the asks of streams that no checkpoint covers: those taken first, in order."""
        with self._db.reading() as tx:
            return self._queries.unsettled(tx, phase)

    def answered_late(self, key: PhaseKey) -> frozenset[str]:
        """Return the asks of a phase whose first reply came after it had closed."""
        with self._db.reading() as tx:
            return self._queries.late.answered(tx, phase_id(tx, key)[0])

    def has_answered_late(self, key: PhaseKey, ask: str) -> bool:
        """Return whether an ask of a phase was answered after it had closed."""
        with self._db.reading() as tx:
            return self._queries.late.has_answered(tx, phase_id(tx, key)[0], ask)

    def elapsed(self, key: PhaseKey) -> float | None:
        """Return for how long a phase was open; None if it never was; raises what `find` raises."""
        with self._db.reading() as tx:
            found = self._queries.elapsed(tx, key)
        return None if found is None else self._again(key, *found)

    def opened_unix_ms(self, key: PhaseKey) -> int:
        """Return when a phase was opened first, in Unix ms by that server's clock."""
        with self._db.reading() as tx:
            return self._queries.opened_unix_ms(tx, key)

    def plan(self, key: PhaseKey) -> Plan | None:
        """Return a phase's plan, without its answers; raises what `find` raises."""
        with self._db.reading() as tx:
            found = self._queries.plan(tx, key)
        return None if found is None else self._again(key, *found)

    def orders(self, key: PhaseKey) -> Mapping[str, tuple[str, ...]]:
        """Return the orders of a phase's plan; none if it was never opened; raises as `find`."""
        with self._db.reading() as tx:
            return self._queries.orders(tx, key)

    def contributions(self, key: PhaseKey) -> list[Contribution]:
        """Return the answers in a phase, in the order of arrival."""
        with self._db.reading() as tx:
            return list(self._queries.contributions(tx, phase_id(tx, key)[0]))

    def sums(self, key: PhaseKey) -> list[RecordedSum]:
        """Return the partial sums of a phase, in the order of arrival."""
        with self._db.reading() as tx:
            return list(self._queries.sums(tx, phase_id(tx, key)[0]))

    def _again(self, key: PhaseKey, found: _Found, is_open: bool) -> _Found:
        """Return what was found of a phase that was opened before."""
        return found

    def waiting_late(self) -> list[CarriedReply]:
        """Return late replies kept for a later round that has not closed, by client id."""
        with self._db.reading() as tx:
            return list(self._queries.late.waiting(tx))

    def carried_into(self, key: PhaseKey) -> list[CarriedReply]:
        """Return the late replies that count in a closed phase, by client id."""
        with self._db.reading() as tx:
            return list(self._queries.late.into(tx, phase_id(tx, key)[0]))


class PhaseWriter(PhaseReader):
    """A run's phases, as the server in charge records them. Thread-safe.

    Methods that write raise `Fenced` if another server took charge, having changed nothing; and
    `JournalNotWritable` if the disk refuses, with the journal unchanged.
    """

    def __init__(
        self,
        database: Database,
        queries: PhaseQueries,
        tables: PhaseTables,
        blob_store: BlobStore,
        fence: Fence,
        now_ms: Callable[[], int],
    ) -> None:
        """Write to ``tables`` behind ``fence``; ``now_ms`` gives Unix ms."""
        super().__init__(database, queries)
        self._tables = tables
        self._blob_store = blob_store
        self._fence = fence
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._in_flight: set[PhaseKey] = set()

    def open(self, key: PhaseKey, plan: Plan) -> None:
        """Record what a phase is going to do, before it does it.

        Raises:
            UnsavableState: the strategy's state cannot be stored.
            RuntimeError: it was opened before; or names parameters that were not put.
        """
        state = self._blob_store.put_state(plan.state, "state_dict()")
        digests = {ask.model for ask in plan.asks if ask.model is not None}
        digests.update(state_digests(state[1]))
        with self._fence.writing() as tx:
            self._blob_store.name(tx, digests)
            self._tables.open(tx, key, plan, state, self._now_ms())
        self._blob_store.named(digests)
        with self._lock:
            self._in_flight.add(key)

    def find(self, key: PhaseKey) -> PhaseRecord | None:
        """As `PhaseReader.find`; an open phase that is found is in flight again."""
        record = super().find(key)
        return None if record is None else self._again(key, record, record.closed is None)

    def _again(self, key: PhaseKey, found: _Found, is_open: bool) -> _Found:
        """Have an open phase that is found in flight again."""
        if is_open:
            with self._lock:
                self._in_flight.add(key)
        return found

    def tick(self, key: PhaseKey, elapsed: float) -> None:
        """Record that the phase has been open for ``elapsed`` seconds under a server in charge."""
        with self._fence.writing() as tx:
            self._tables.tick(tx, key, elapsed)

    def tick_all(self, elapsed: Mapping[PhaseKey, float]) -> None:
        """Do as `tick` for several phases, in one transaction."""
        with self._fence.writing() as tx:
            for key, seconds in elapsed.items():
                self._tables.tick(tx, key, seconds)

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
        sums: Iterable[tuple[PhaseKey, RecordedSum]] = (),
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Record what came: answers as `contribute`, and late and duplicate ones; all or nothing.

        ``sums`` are the partial sums that answers name.

        Returns:
            The outcomes of both. A late reply is entered once: that of a task which has one already
            is a DUPLICATE, counted, and not kept.
        """
        pairs, entries, added_up = list(items), list(late), list(sums)
        with self._fence.writing() as tx:
            for key, each in added_up:
                self._tables.add_sum(tx, key, each)
            outcomes = [self._tables.contribute(tx, key, what) for key, what in pairs]
            late_outcomes = [self._tables.enter_late(tx, entry) for entry in entries]
        # A reply whose phase has just closed may still be entered as late, with its file.
        self._blob_store.contributed(
            what
            for (_, what), outcome in zip(pairs, outcomes, strict=True)
            if outcome is not Outcome.LATE
        )
        self._blob_store.contributed(entry.kept for entry in entries if entry.kept is not None)
        for _, each in added_up:
            self._blob_store.release(each.order_id, each.blob)
        return outcomes, late_outcomes

    def judge(self, key: PhaseKey, client_id: str, kind: Outcome, reason: str) -> None:
        """Record the verdict on a contribution that came before its phase was opened again."""
        with self._fence.writing() as tx:
            self._tables.judge(tx, key, client_id, kind, reason)

    def close(
        self,
        key: PhaseKey,
        closed: ClosedPhase,
        parts: Sequence[Part] = (),
        about: Mapping[str, StateValue] | None = None,
    ) -> None:
        """Record the closing set, before it is aggregated. Final; repeating it is harmless.

        ``parts`` is what each client did, in the order of the outcomes, or nothing; ``about`` is
        read with the phase even where its asks are not. Both are only for people.

        Raises:
            RuntimeError: it was closed differently; or contains a client without an accepted
                contribution.
        """
        with self._fence.writing() as tx:
            self._tables.close(tx, key, closed, self._now_ms(), parts, about or {})
        with self._lock:
            self._in_flight.discard(key)

    def seconds_since_closed(self, key: PhaseKey) -> float | None:
        """Return the seconds since a phase closed, by this server's clock; None if it is open."""
        with self._db.reading() as tx:
            at = self._queries.closed_unix_ms(tx, key)
        return None if at is None else max(0.0, (self._now_ms() - at) / 1000)

    def settle(self, tx: sqlite3.Connection, server_round: int, *, keep_replies: bool) -> None:
        """Mark the phases up to ``server_round`` as covered by a checkpoint, but those in flight.

        Their plans and replies are deleted unless ``keep_replies``. It runs within a transaction
        of its caller, which writes the checkpoint.
        """
        with self._lock:
            in_flight = tuple(self._in_flight)
        self._tables.settle(tx, server_round, in_flight, keep_replies)
