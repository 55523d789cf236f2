"""The runs in a folder, as a table for people and as values for programs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from flmq.common.cleaning import one_line
from flmq.journal import list_runs
from flmq.journal.records import RunInfo, RunState
from flmq.observe.record import RunRecord
from flmq.observe.recorded import RecordedRun, recorded_runs

__all__ = ["listed", "table_of"]


def listed(runs_dir: Path) -> list[dict[str, Any]]:
    """Return the runs in ``runs_dir``, those with a journal first, latest first."""
    runs = list_runs(runs_dir)
    known = {run.folder.name for run in runs}
    return [
        *(_journalled(run) for run in runs),
        *(_recorded(each) for each in recorded_runs(runs_dir, known)),
    ]


def _state(record: RunRecord) -> str:
    """Return the state of a run without a journal, as its record has it."""
    if record.error is not None:
        return "stopped" if record.error.startswith("stopped after") else "failed"
    return "cut off" if record.ended is None else RunState.FINISHED.value


def table_of(runs_dir: Path) -> Table:
    """Return the same runs as a table for people."""
    table = Table(box=None, pad_edge=False)
    for column in ("job", "state", "rounds", "started", "note"):
        table.add_column(column, justify="right" if column == "rounds" else "left")
    runs = list_runs(runs_dir)
    for run in runs:
        table.add_row(run.folder.name, run.state.value, str(run.rounds), _when(run), _note_on(run))
    for recorded in recorded_runs(runs_dir, {run.folder.name for run in runs}):
        table.add_row(recorded.folder.name, *_recorded_cells(recorded))
    return table


def _journalled(run: RunInfo) -> dict[str, Any]:
    started = run.started_unix_ms
    return {
        "job": run.folder.name,
        "state": run.state.value,
        "rounds": run.rounds,
        "started": None if started is None else _iso(started),
        "folder": str(run.folder),
        "journal": True,
        "stopped_early": (run.ending or {}).get("stopped_early") or None,
        "problem": run.problem or None,
    }


def _recorded(run: RecordedRun) -> dict[str, Any]:
    record = run.record
    return {
        "job": run.folder.name,
        "state": RunState.DAMAGED.value if record is None else _state(record),
        "rounds": 0 if record is None else len(record.rounds),
        "started": None if record is None else record.started,
        "folder": str(run.folder),
        "journal": False,
        "stopped_early": None if record is None else record.stopped_early or None,
        "problem": run.problem or None,
    }


def _iso(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="seconds")


def _note_on(run: RunInfo) -> str:
    early = (run.ending or {}).get("stopped_early")
    return one_line(run.problem or (f"stopped early: {early}" if early else ""))


def _when(run: RunInfo) -> str:
    if run.started_unix_ms is None:
        return ""
    return datetime.fromtimestamp(run.started_unix_ms / 1000).isoformat(" ", timespec="seconds")


def _recorded_cells(recorded: RecordedRun) -> tuple[str, str, str, str]:
    """Return state, rounds, start and note of a run without a journal."""
    record = recorded.record
    if record is None:
        return RunState.DAMAGED.value, "0", "", one_line(recorded.problem)
    begun = datetime.fromisoformat(record.started).astimezone().replace(tzinfo=None)
    started = begun.isoformat(" ", timespec="seconds")
    return (
        _state(record),
        str(len(record.rounds)),
        started,
        f"no journal ({one_line(record.broker)})",
    )
