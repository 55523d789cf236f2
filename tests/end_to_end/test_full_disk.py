"""A server whose disk is full, as a process: it stops, blames nobody, and goes on with its bits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disks import filled, small_disk
from tests.end_to_end.test_processes import CLIENTS, Processes
from tests.transport.rigs import eventually

SIZE = "--config=size=1000000"
"""Four megabytes a model."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 100 MiB, where the runs are."""
    with small_disk(tmp_path / "runs", 100) as folder:
        yield folder


def test_a_server_without_room_stops_and_goes_on_once_there_is_some(
    broker_url: str, tmp_path: Path, disk: Path
) -> None:
    processes = Processes(broker_url, tmp_path)
    try:
        workers = {name: processes.client(name) for name in CLIENTS}
        processes.ends(processes.server("undisturbed", SIZE))
        for mark in processes.marks.iterdir():
            mark.unlink()
        release = [processes.hold(name, 2) for name in CLIENTS]
        server = processes.server("job", SIZE)
        eventually(lambda: len(list(processes.marks.glob("?-2-*"))) == len(CLIENTS), 60.0)
        with filled(disk, 1_000_000):
            for file in release:
                file.unlink()
            said = processes.ends(server, 4)
        assert "SpoolFailed" in said
        assert "No space left on device" in said
        assert "Traceback" not in said
        processes.ends(processes.server("job", SIZE))
        assert processes.model("job") == processes.model("undisturbed")
        for worker in workers.values():
            assert "rejected" not in processes.output(worker)
    finally:
        processes.end()
