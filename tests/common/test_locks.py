"""Locks between processes go with their holder, however it ends and whoever it forked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flmq.common.locks import Timeout, is_held, process_lock

_HOLDER = """
import os, sys, time
from pathlib import Path
from flmq.common.locks import process_lock
lock = process_lock(Path(sys.argv[1]))
lock.acquire()
child = os.fork() if sys.argv[2] == "forks" else 1
if child:
    print(child, flush=True)
time.sleep(300)
"""


@pytest.mark.parametrize("forks", ["forks", "alone"])
def test_a_killed_holder_leaves_no_lock(tmp_path: Path, forks: str) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(path), forks], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    child = int(holder.stdout.readline())
    try:
        assert is_held(path)
        with pytest.raises(Timeout):
            process_lock(path).acquire(timeout=0.1)
        holder.kill()
        holder.wait()
        assert not is_held(path)
        with process_lock(path):
            assert is_held(path)
    finally:
        holder.kill()
        holder.wait()
        holder.stdout.close()
        if forks == "forks":
            os.kill(child, signal.SIGKILL)


def test_a_lock_that_was_removed_is_held_by_nobody(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    first = process_lock(path)
    first.acquire()
    path.unlink()
    with process_lock(path).acquire(timeout=1):
        assert is_held(path)
        first.release()
        assert is_held(path)


def test_a_lock_that_cannot_be_looked_at_is_held_by_nobody(tmp_path: Path) -> None:
    assert not is_held(tmp_path / "no folder" / "lock")


def test_a_lock_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with process_lock(path):
        assert path.stat().st_mode & 0o777 == 0o600
