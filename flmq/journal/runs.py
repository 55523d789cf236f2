"""List the runs in a folder."""

from __future__ import annotations

from pathlib import Path

from flmq.common.errors import FlmqError, StoredDataError
from flmq.journal.active_marker import is_in_charge
from flmq.journal.journal import Journal
from flmq.journal.marker import MARKER, read_marker
from flmq.journal.opening import DATABASE
from flmq.journal.records import RunInfo, RunState

__all__ = ["list_runs", "look_at"]


def list_runs(runs_dir: Path) -> list[RunInfo]:
    """Return every run in ``runs_dir``, latest first; damaged ones with what is wrong.

    Folders without a journal are skipped; a missing ``runs_dir`` is not an error.
    """
    if not runs_dir.is_dir():
        return []
    runs = [look_at(folder) for folder in sorted(runs_dir.iterdir()) if _is_run(folder)]
    return sorted(runs, key=lambda run: -(run.started_unix_ms or 0))


def _is_run(folder: Path) -> bool:
    return (folder / MARKER).exists() or (folder / DATABASE).exists()


def look_at(folder: Path) -> RunInfo:
    """Describe the run in ``folder``; if damaged or missing, with what is wrong."""
    try:
        journal = Journal.open(folder, create=False)
    except FlmqError as error:
        return _damaged(folder, error)
    try:
        return _read(folder, journal)
    except FlmqError as error:
        return _damaged(folder, error)
    finally:
        journal.close()


def _read(folder: Path, journal: Journal) -> RunInfo:
    if journal.identity is None:
        state = RunState.UNFINISHED
        return RunInfo(folder, folder.name, "", state, 0, None)
    ending = journal.finished
    if ending is not None:
        state = RunState.FINISHED
    elif is_in_charge(folder):
        state = RunState.RUNNING
    else:
        state = RunState.UNFINISHED
    return RunInfo(
        folder,
        journal.identity.name,
        journal.identity.run_id,
        state,
        journal.rounds_done,
        journal.started_unix_ms,
        journal.about,
        ending,
    )


def _damaged(folder: Path, error: FlmqError) -> RunInfo:
    try:
        marker = read_marker(folder)
    except StoredDataError:
        marker = None
    if marker is None:
        return RunInfo(folder, folder.name, "", RunState.DAMAGED, 0, None, problem=str(error))
    return RunInfo(
        folder,
        marker.job,
        marker.run_id,
        RunState.DAMAGED,
        0,
        marker.created_unix_ms,
        problem=str(error),
    )
