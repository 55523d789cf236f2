"""One run's folder, read for the page: from its journal, or its record if it has none."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flmq.common.errors import StoredDataError
from flmq.journal.opening import DATABASE
from flmq.journal.reader import JournalReader
from flmq.journal.reading import open_to_read
from flmq.journal.records import RoundRow
from flmq.observe.eventlog.entries import Kind
from flmq.observe.eventlog.reader import EventLogReader
from flmq.observe.record import load_record
from flmq.observe.recorded import rows_of
from flmq.ui.reading.befallen import marks_of
from flmq.ui.reading.rows import round_json
from flmq.ui.reading.versions import Version, stamp_of, version_of

__all__ = ["RunFiles"]


class RunFiles:
    """The files of one run, kept open, and its rounds, read once each. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        """Read ``folder``, when asked to."""
        self.folder = folder
        self.events = EventLogReader(folder)
        self._lock = threading.RLock()
        self._journal: JournalReader | None = None
        self._file: object = None
        self._rounds: dict[int, dict[str, Any]] = {}
        self._open: list[dict[str, Any]] = []
        self._read_at: Version | None = None
        self._late = -1
        self.read_anew = 0
        """How often rounds were read again that had been read before."""

    @contextlib.contextmanager
    def journal(self) -> Iterator[JournalReader | None]:
        """Yield the run's journal, or None if it has none.

        Raises:
            StoredDataError: it is damaged, or of a newer flmq.
        """
        with self._lock:
            stamp = stamp_of(self.folder / DATABASE)
            file = None if stamp is None else stamp[0]
            if file != self._file:
                self._forget()
            if stamp is None:
                yield None
                return
            if self._journal is None:
                self._journal, self._file = open_to_read(self.folder), file
            try:
                yield self._journal
            except StoredDataError:
                self._forget()
                raise

    def rounds(self, since: int = 0) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rounds from ``since`` on that are done, and those that are not.

        Raises:
            StoredDataError: the run cannot be read.
        """
        with self._lock:
            version = version_of(self.folder)
            if version != self._read_at:
                self._read_rounds()
                self._read_at = version
            done = [each for number, each in self._rounds.items() if number >= since]
            return done, list(self._open)

    def rows(self, number: int) -> list[RoundRow]:
        """Return a round with each client's part; none if there is no such round.

        Raises:
            StoredDataError: the run cannot be read.
        """
        with self.journal() as journal:
            if journal is not None:
                return journal.rounds(number, number, parts=True)
        record = load_record(self.folder)
        return [row for row in rows_of(record) if row.server_round == number]

    def marks(self) -> list[dict[str, Any]]:
        """Return what befell the run."""
        happened = self.events.of_kinds(Kind.KILL, Kind.NOTE, Kind.CONNECTION)
        return marks_of(self.events.servers(), happened)

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            self._forget()
            self.events.close()

    def _forget(self) -> None:
        if self._journal is not None:
            self._journal.close()
        self._journal = self._file = self._read_at = None
        self._rounds, self._open, self._late = {}, [], -1

    def _read_rounds(self) -> None:
        """Read the rounds that are new; all of them, if a late reply changed an earlier one."""
        with self.journal() as journal:
            if journal is None:
                self.read_anew += 1
                rows = rows_of(load_record(self.folder))
                self._rounds = {row.server_round: round_json(row) for row in rows}
                return
            late = journal.late_replies()
            since = max(self._rounds, default=-1) + 1 if late == self._late else 0
            self._late = late
            found = journal.rounds(since, outcomes=False)
            if since == 0:
                self._rounds = {}
                self.read_anew += 1
            self._rounds |= {row.server_round: round_json(row) for row in found if row.done}
            self._open = [round_json(row) for row in found if not row.done]
