"""Ends a node whose owner has died without a word, as after ``kill -9``.

Runs as a script of its own, with the standard library alone. PR_SET_PDEATHSIG would be shorter, but
it fires when the *thread* that started the node ends, and does not reach epmd or the port programs.
A watchdog sees the owner's end in two ways: its standard input, a pipe that the owner holds, comes
to its end; and the owner's pidfd becomes readable, even where a forked child has inherited the
pipe. One byte on the pipe, before either, means that the node is no longer its concern.

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
"""Seconds without a process of the node after which none is expected any more."""


def _await_end(owner: int) -> bool:
    """Wait for the owner's word or end; return whether it ended without a word."""
    watched: list[int] = [0]
    with contextlib.suppress(OSError, AttributeError):
        watched.append(os.pidfd_open(owner))
    # Asked after the pidfd is open: a pid that was given to another process since is noticed.
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
    """Watch until the owner speaks or ends."""
    if _await_end(int(owner)):
        _end(folder)
        if afterwards == "remove":
            shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
