"""End a node whose owner has died without stopping it, as after ``kill -9``.

Runs as a script of its own, with the standard library alone. PR_SET_PDEATHSIG would be shorter, but
it fires when the *thread* that started the node ends, and does not reach epmd or the port programs.
The watchdog notices the owner's end in two ways: its standard input, a pipe held by the owner,
reaches end of file; and the owner's pidfd becomes readable, even if a forked child has inherited
the pipe. One byte on the pipe before either releases the watchdog.

Usage: ``watchdog.py OWNER_PID FOLDER keep|remove``; ``remove`` deletes the folder afterwards.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import time
from pathlib import Path

_QUIET = 0.3
"""Seconds without any process of the node after which no more are expected."""


def _await_end(owner: int) -> bool:
    """Wait for the owner's byte or end; return whether it ended without sending one."""
    watched: list[int] = [0]
    with contextlib.suppress(OSError, AttributeError):
        watched.append(os.pidfd_open(owner))
    # Checked after opening the pidfd, to notice a pid that has been reused by another process.
    if os.getppid() != owner:
        return True
    readable, _, _ = select.select(watched, [], [])
    return not (0 in readable and os.read(0, 1))


def _members(mark: bytes) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


def _end(folder: str) -> None:
    mark = f"FLMQ_NODE_FOLDER={folder}".encode()
    last_seen = time.monotonic()
    while time.monotonic() - last_seen < _QUIET:
        for pid in _members(mark):
            last_seen = time.monotonic()
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def main(owner: str, folder: str, afterwards: str) -> None:
    """Watch until the owner releases the watchdog or ends."""
    if _await_end(int(owner)):
        _end(folder)
        if afterwards == "remove":
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
