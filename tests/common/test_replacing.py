"""Files are replaced whole, or stay what they were."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flmq.common.files import replacing

_KILLED = """
import os, signal, sys
from pathlib import Path
from flmq.common.files import replacing
with replacing(Path(sys.argv[1])) as file:
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_new_one_takes_the_old_ones_place(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "file"
    for text in ("old", "new"):
        with replacing(path) as file:
            file.write(text.encode())
        assert path.read_text() == text
        assert names(path.parent) == ["file"]


def test_what_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def write_half() -> None:
        with replacing(path) as file:
            file.write(b"half of")
            raise ValueError("no JSON")

    with pytest.raises(ValueError, match="no JSON"):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_what_a_killed_process_left_is_removed_and_what_a_live_one_writes_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "file"
    done = subprocess.run([sys.executable, "-c", _KILLED, str(path)], check=False)
    assert done.returncode == -9
    assert len(names(tmp_path)) == 1
    with replacing(path, tidy=True) as first:
        first.write(b"first")
        first.flush()
        with replacing(tmp_path / "other") as second:
            second.write(b"second")
    assert path.read_text() == "first"
    assert names(tmp_path) == ["file", "other"]
