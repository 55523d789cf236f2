"""All runs of a folder, as the page's JSON: `flmq ui` serves it, a report embeds it."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flmq.common.errors import FlmqError, StoredDataError, UsageError
from flmq.journal.marker import MARKER
from flmq.journal.opening import DATABASE
from flmq.observe.record import RunRecord
from flmq.observe.runs.streamed import stream_record
from flmq.ui.reading.befallen import away_of
from flmq.ui.reading.broker import buried_in
from flmq.ui.reading.clients import client_json, clients_json
from flmq.ui.reading.comparing import compare_runs
from flmq.ui.reading.heads import (
    Beginning,
    beginning_of,
    damaged_head,
    head_json,
    recorded_beginning,
    whole_head,
)
from flmq.ui.reading.rows import phases_json, round_json
from flmq.ui.reading.run import RunFiles
from flmq.ui.reading.tasks import LAST_ROUNDS, LastTasks
from flmq.ui.reading.versions import Version, Versions
from flmq.ui.said import sentences_of_round

__all__ = ["Cursor", "NoSuchPage", "Runs"]

_MOST_OPEN = 64
"""Runs whose files stay open."""
_MOST_LINES = 1000
_NO_ROUND = 2**63
"""A number that SQLite cannot look for."""
_LATEST = 20
"""Runs whose dead letters are told of."""


class NoSuchPage(UsageError):
    """There is no run, round or client of that name."""


@dataclass(frozen=True, slots=True)
class Cursor:
    """How far a run is."""

    round: int
    """The last round that is done."""
    entry: int
    """Id of the last entry of the event log."""
    read_anew: int
    """Changes whenever a round may have that was done before."""


class Runs:
    """The runs in a folder. Thread-safe; nothing is ever written."""

    def __init__(self, runs_dir: Path) -> None:
        """Read the folders in ``runs_dir``, which need not be there yet."""
        self._dir = runs_dir
        self._lock = threading.Lock()
        self._open: dict[str, RunFiles] = {}
        self._versions = Versions()
        self._tasks = LastTasks()

    def folders(self) -> list[Path]:
        """Return the folders that hold a run."""
        try:
            found = sorted(self._dir.iterdir())
        except OSError:
            return []
        return [path for path in found if _holds_run(path)]

    def versions(self, jobs: Collection[str] | None = None) -> dict[str, Version]:
        """Return what changes with each run, or each of ``jobs``, by its folder's name.

        For one thread at a time.
        """
        folders = self.folders() if jobs is None else [self._dir / job for job in jobs]
        return {folder.name: self._versions.of(folder) for folder in folders}

    def heads(self) -> list[dict[str, Any]]:
        """Return a line a run, the latest first."""
        heads = [self._head(folder) for folder in self.folders()]
        order = {"running": 0}
        return sorted(
            heads, key=lambda head: (order.get(head["state"], 1), -(head["started_ms"] or 0))
        )

    def head(self, job: str) -> dict[str, Any]:
        """Return what stands above a run's charts."""
        files = self._files(job)
        try:
            beginning, (done, open_) = self._beginning(files), files.rounds()
        except StoredDataError as error:
            return damaged_head(files.folder, str(error))
        head = head_json(files.folder, beginning, done, open_, files.events)
        return whole_head(head, beginning, done, files.events)

    def rounds(self, job: str, since: int) -> dict[str, Any]:
        """Return a run's rounds from ``since`` on."""
        done, open_ = self._files(job).rounds(since)
        return {"rounds": done, "open": open_[-1] if open_ else None}

    def round(self, job: str, number: int) -> dict[str, Any]:
        """Return a round with each client's part in it."""
        files = self._files(job)
        rows = files.rows(number) if number < _NO_ROUND else []
        if not rows:
            raise NoSuchPage(f"run {job!r} has no round {number}")
        away = away_of(files.events.presence())
        found = {
            "round": round_json(rows[0]),
            "phases": phases_json(rows[0], away),
        }
        return {**found, "said": sentences_of_round(found, files.marks())}

    def clients(self, job: str) -> dict[str, Any]:
        """Return a line a client of a run, over its last rounds."""
        files = self._files(job)
        tasks = [task for each in self._tasks.of(files, None).values() for task in each]
        latest = files.events.latest_presence()
        return {"clients": clients_json(tasks, latest), "rounds": LAST_ROUNDS}

    def client(self, job: str, client: str) -> dict[str, Any]:
        """Return what is known of a client in a run."""
        files = self._files(job)
        tasks = [task for each in self._tasks.of(files, client).values() for task in each]
        presence = files.events.presence(client)
        if not tasks and not presence:
            raise NoSuchPage(f"run {job!r} has no client {client!r} in its last rounds")
        return client_json(client, tasks, presence)

    def marks(self, job: str) -> dict[str, Any]:
        """Return what befell a run."""
        return {"marks": self._files(job).marks()}

    def log(self, job: str, before: int | None, search: str, limit: int) -> dict[str, Any]:
        """Return log lines of a run: the last ``limit`` before the id ``before``."""
        events = self._files(job).events
        most = max(1, min(limit, _MOST_LINES))
        found = events.log(before=before, search=search, most=most + 1)
        lines = [
            {
                "id": each.id,
                "at_ms": each.at_unix_ms,
                "level": each.word,
                "text": each.text,
                "round": each.server_round,
                "client": each.who or None,
            }
            for each in found[-most:]
        ]
        return {"lines": lines, "earlier": len(found) > most, "left_out": events.left_out()}

    def refused(self) -> list[dict[str, Any]]:
        """Return what servers sent to ``flmq.dead``, and why, by the logs of the latest runs."""
        jobs = [head["job"] for head in self.heads()[:_LATEST] if head["state"] != "damaged"]
        return buried_in(
            (job, line)
            for job in jobs
            for line in self._files(job).events.log(
                before=None, search=" to flmq.dead, sent by ", most=_MOST_LINES
            )
        )

    def compare(self, jobs: Sequence[str]) -> dict[str, Any]:
        """Return runs over one another, in this order; raises `CannotCompare`."""
        return compare_runs(self.folders(), jobs)

    def cursor(self, job: str) -> Cursor:
        """Return how far a run is."""
        files = self._files(job)
        try:
            done, _ = files.rounds()
        except StoredDataError:
            done = []
        last = done[-1]["round"] if done else 0
        return Cursor(last, files.events.last_id(), files.read_anew)

    def close(self) -> None:
        """Close all files."""
        with self._lock:
            for files in self._open.values():
                files.close()
            self._open.clear()

    # -- one run -------------------------------------------------------------------------------

    def _files(self, job: str) -> RunFiles:
        folder = self._dir / job
        if job in ("", ".", "..") or "/" in job or "\0" in job or not _holds_run(folder):
            raise NoSuchPage(f"there is no run {job!r} in {self._dir}")
        with self._lock:
            files = self._open.pop(job, None) or RunFiles(folder)
            self._open[job] = files  # the last used is the last in order
            while len(self._open) > _MOST_OPEN:
                oldest = next(iter(self._open))
                self._open.pop(oldest).close()
        return files

    def _head(self, folder: Path) -> dict[str, Any]:
        try:
            files = self._files(folder.name)
            beginning, (done, open_) = self._beginning(files), files.rounds()
        except FlmqError as error:
            return damaged_head(folder, str(error))
        return head_json(folder, beginning, done, open_, files.events)

    def _beginning(self, files: RunFiles) -> Beginning:
        record = _record(files.folder)
        with files.journal() as journal:
            if journal is not None:
                return beginning_of(files.folder, journal, record)
        if record is None:
            stream_record(files.folder)  # raises what is wrong with it
            raise StoredDataError(f"{files.folder} holds no run")
        return recorded_beginning(files.folder, record)


def _holds_run(folder: Path) -> bool:
    # Path.exists raises where a name is too long, or a folder must not be entered.
    return any(os.path.exists(folder / name) for name in (DATABASE, MARKER, "history.json"))  # noqa: PTH110


def _record(folder: Path) -> RunRecord | None:
    try:
        head, _ = stream_record(folder)
    except StoredDataError:
        return None
    return head
