"""A client's folders are looked at before it begins, by writing there."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path
from typing import Any

import pytest

from flmq.client.folders import ClientFolderNotWritable, check_folder
from flmq.client.options import WorkerOptions
from flmq.client.tasks.store import AckPolicy


def test_folders_are_made_and_nothing_is_left_in_them(tmp_path: Path) -> None:
    options = WorkerOptions(state_dir=tmp_path / "state", cache_dir=tmp_path / "cache")
    options.check_folders("a")
    options.check_folders("a")
    made = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert made == ["cache", "state", "state/a", "state/a/spool"]


def test_without_a_spool_none_is_made(tmp_path: Path) -> None:
    WorkerOptions(state_dir=tmp_path / "state", ack=AckPolicy.RESULT).check_folders("a")
    assert [path.name for path in (tmp_path / "state").rglob("*")] == ["a"]
    WorkerOptions().check_folders("a")


def test_a_folder_of_a_file_system_that_is_read_only_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(**_: Any) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(tempfile, "TemporaryFile", read_only)
    with pytest.raises(ClientFolderNotWritable, match="cannot be written: Read-only file system"):
        check_folder(tmp_path, "--state-dir")
