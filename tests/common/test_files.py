"""What flmq makes is for its owner alone, and whole or not there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flmq.common.files import (
    append_private,
    create_private,
    make_folder,
    remove_temporaries,
    replacing,
    temporary_of,
)


@pytest.fixture(autouse=True)
def usual_umask() -> Iterator[None]:
    before = os.umask(0o022)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


def test_folders_that_are_made_are_private_and_others_stay(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    path = tmp_path / "shared" / "a" / "b"
    assert make_folder(path) == [tmp_path / "shared" / "a", path]
    assert make_folder(path) == []
    assert [mode(folder) for folder in (path, path.parent)] == [0o700, 0o700]
    assert mode(tmp_path / "shared") == 0o755


def test_a_file_in_a_folders_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileExistsError):
        make_folder(tmp_path / "file")
    with pytest.raises(NotADirectoryError):
        make_folder(tmp_path / "file" / "below")


def test_files_that_are_made_are_private(tmp_path: Path) -> None:
    with create_private(tmp_path / "new") as file:
        file.write(b"1\r\n2\n")
    with pytest.raises(FileExistsError):
        create_private(tmp_path / "new")
    for text in (b"a", b"b"):
        with append_private(tmp_path / "log") as file:
            file.write(text)
    assert [mode(tmp_path / name) for name in ("new", "log")] == [0o600, 0o600]
    assert (tmp_path / "new").read_bytes() == b"1\r\n2\n"
    assert (tmp_path / "log").read_bytes() == b"ab"


def test_what_replaces_a_file_that_all_could_read_is_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with replacing(path) as file:
        file.write(b"new")
    assert (path.read_text(), mode(path)) == ("new", 0o600)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_temporary_files_of_one_file_are_told_from_those_of_others(tmp_path: Path) -> None:
    for name in ("a.1.0.tmp", "ab.tmp", "b.x.0.tmp", "c"):
        (tmp_path / name).touch()
    mine = temporary_of(tmp_path / "a")
    mine.touch()
    remove_temporaries(tmp_path, "a", of_dead=True)
    assert mine.exists()
    remove_temporaries(tmp_path, "b")
    remove_temporaries(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["c"]
