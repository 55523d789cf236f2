"""A disk that fills in the middle of a write: a typed error, and the journal as it was."""

from __future__ import annotations

import contextlib
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from flmq.common import ndarrays_to_parameters
from flmq.common.errors import RunError
from flmq.journal import Journal, JournalNotWritable
from tests.disks import filled, small_disk
from tests.journal.runs import answer, begun, end_round, fit, model, names, plan, told, upload

Limit = Callable[[Path, int], contextlib.AbstractContextManager[None]]


@contextlib.contextmanager
def file_limit(folder: Path, free: int) -> Iterator[None]:
    """No file may grow beyond the largest there is and ``free`` bytes."""
    largest = max(path.stat().st_size for path in folder.rglob("*"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    with small_disk(tmp_path / "disk", 2) as folder:
        yield folder


def started(folder: Path) -> Journal:
    journal = begun(folder)
    end_round(journal, 0)
    journal.phases.open(fit(1), plan(["a", "b"]))
    journal.phases.contribute(fit(1), answer("a"))
    return journal


def fill_up(folder: Path, limit: Limit) -> None:
    """Each write with ever more space, until it succeeds; it fails some times before."""
    large = ndarrays_to_parameters([np.arange(20_000, dtype=np.float32)])
    journal = started(folder)
    writes: list[Callable[[], object]] = [
        lambda: journal.phases.contribute(fit(1), answer("b", reply=bytes(60_000))),
        lambda: journal.phases.open(fit(2), plan(["a"], 2, None, big=[bytes(30_000)])),
        lambda: journal.checkpoint(1, large, {"x": "x" * 50_000}, {"m": np.arange(9e3)}, {}),
    ]
    for write in writes:
        before = told(journal)
        refusals = []
        for free in range(0, 400_000, 16_000):
            with limit(folder, free):
                try:
                    write()
                    break
                except JournalNotWritable as error:
                    refusals.append(error)
            assert told(journal) == before
            assert not [name for name in names(folder / "blobs") if name.endswith(".tmp")]
        assert len(refusals) > 1
        for refusal in refusals:
            assert isinstance(refusal, RunError)
            assert "What was recorded before is intact: see to space" in str(refusal)
        assert told(journal) != before
    after = told(journal)
    journal.close()
    assert told(Journal.open(folder)) == after


def test_a_quota_that_is_reached(tmp_path: Path) -> None:
    fill_up(tmp_path / "job", file_limit)


def test_a_file_system_that_is_full(disk: Path) -> None:
    fill_up(disk / "job", filled)


def test_a_killed_server_finds_it_as_it_was(disk: Path) -> None:
    folder = disk / "job"
    journal = started(folder)
    before = told(journal)
    with filled(folder, 20_000), pytest.raises(JournalNotWritable):
        journal.phases.contribute(fit(1), answer("b", reply=bytes(60_000)))
    # Not closed: as after kill -9, the log is there with what was begun.
    again = Journal.open(folder)
    assert told(again) == before
    again.take_charge()
    again.phases.contribute(fit(1), answer("b", reply=bytes(60_000)))


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(JournalNotWritable, match="file/job: cannot be written: Not a directory"):
        Journal.open(tmp_path / "file" / "job")


def test_a_reply_from_another_file_system(disk: Path, tmp_path: Path) -> None:
    journal = started(disk / "job")
    _, ref = upload(journal, model(1))
    path = tmp_path / "elsewhere"
    path.write_bytes(b"x")
    with pytest.raises(JournalNotWritable, match="Invalid cross-device link"):
        journal.adopt_reply("b-1", path, ref)
    assert path.exists()
