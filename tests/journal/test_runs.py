"""A folder of runs, at a glance."""

from __future__ import annotations

from pathlib import Path

from flmq.journal import Journal, RunState, list_runs
from tests.journal.runs import ABOUT, IDENTITY, begun, end_round


def test_runs_by_their_state(tmp_path: Path) -> None:
    running = begun(tmp_path / "running")
    end_round(running, 3)
    stopped = begun(tmp_path / "stopped")
    stopped.close()
    finished = begun(tmp_path / "finished")
    finished.finish({"reason": "all rounds done"})
    Journal.open(tmp_path / "fresh").close()
    begun(tmp_path / "damaged").close()
    (tmp_path / "damaged" / "journal.db").write_bytes(b"")
    begun(tmp_path / "unreadable").close()
    (tmp_path / "unreadable" / "run.json").write_bytes(b"")
    (tmp_path / "no run").mkdir()
    (tmp_path / "file").write_bytes(b"")

    runs = {run.folder.name: run for run in list_runs(tmp_path)}
    assert {name: run.state for name, run in runs.items()} == {
        "running": RunState.RUNNING,
        "stopped": RunState.UNFINISHED,
        "finished": RunState.FINISHED,
        "fresh": RunState.UNFINISHED,
        "damaged": RunState.DAMAGED,
        "unreadable": RunState.DAMAGED,
    }
    assert (runs["running"].job, runs["running"].run_id) == (IDENTITY.name, IDENTITY.run_id)
    assert (runs["running"].rounds, runs["running"].about) == (3, ABOUT)
    assert runs["running"].started_unix_ms == running.started_unix_ms
    assert runs["finished"].ending == {"reason": "all rounds done"}
    assert (runs["fresh"].job, runs["fresh"].started_unix_ms) == ("fresh", None)
    assert "is empty. Nothing was changed" in runs["damaged"].problem
    assert runs["damaged"].job == IDENTITY.name
    assert "run.json: cannot be read" in runs["unreadable"].problem
    running.close()
    assert {r.folder.name: r.state for r in list_runs(tmp_path)}["running"] is RunState.UNFINISHED


def test_the_latest_run_comes_first(tmp_path: Path) -> None:
    for name, seconds in (("b", 1), ("a", 3), ("c", 2)):
        journal = Journal.open(tmp_path / name, clock=lambda s=seconds: s * 10**9)  # type: ignore[misc]
        journal.begin(IDENTITY, {}, {})
        journal.close()
    assert [run.folder.name for run in list_runs(tmp_path)] == ["a", "c", "b"]


def test_no_folder_no_runs(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
