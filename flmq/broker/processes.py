"""Start, recognise and end the processes of a private node.

Erlang scatters processes: the virtual machine, its port programs, ``epmd``, which leaves its
parent, and short-lived ones. They share their environment, so each is started with
``FLMQ_NODE_FOLDER`` set to the node's folder, and /proc tells which processes carry it. That holds
after any fork, after the death of any parent, and for processes of an earlier Python process; and a
pid reused by another program is not mistaken for ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from flmq.broker.polling import poll_until

__all__ = ["MARK", "belongs", "end_all", "members", "spawn", "supported", "wait_gone"]

MARK = "FLMQ_NODE_FOLDER"
"""The environment variable with the node's folder, which every process of the node has."""

_PROC = Path("/proc")
_INSTANT = 0.001
_LONGEST_EXEC = 10.0
# Kept so that ended children are reaped; those left running on purpose stay here.
_children: dict[int, subprocess.Popen[bytes]] = {}


def supported() -> bool:
    """Return whether this system has a Linux /proc, which this module needs."""
    return (_PROC / "self" / "environ").exists()


def spawn(argv: Sequence[str], env: Mapping[str, str], folder: Path, log: Path) -> int:
    """Start ``argv`` in its own session, its output appended to ``log``; return its pid.

    Its own session shields it from the terminal's Ctrl-C.

    Raises:
        OSError: the program cannot be started.
    """
    with log.open("ab") as output:
        child = subprocess.Popen(
            argv,
            env={**env, MARK: str(folder)},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    _children[child.pid] = child
    return child.pid


def members(folder: Path) -> list[int]:
    """Return the pids of the live processes that belong to the node in ``folder``."""
    _reap()
    return [
        int(entry.name)
        for entry in _PROC.iterdir()
        if entry.name.isdigit() and _carries(entry, folder)
    ]


def belongs(pid: int, folder: Path) -> bool:
    """Return whether ``pid`` is alive and belongs to the node in ``folder``.

    For a child of ours, ask the system: /proc may be empty for a process in the middle of exec.
    """
    child = _children.get(pid)
    if child is not None:
        return child.poll() is None
    _reap()
    return _carries(_PROC / str(pid), folder)


def wait_gone(pid: int, timeout: float) -> bool:
    """Wait up to ``timeout`` seconds until ``pid`` holds no port or file; return whether it did.

    For a process that `belongs` has just recognised as ours.
    """
    return poll_until(lambda: _gone(pid), timeout)


def end_all(folder: Path, timeout: float = 10.0) -> list[int]:
    """Kill the processes of the node in ``folder``; return those alive after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while (left := members(folder)) and time.monotonic() < deadline:
        for pid in left:
            # It may have ended since, or belong to another user: the next check tells.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in left:
            wait_gone(pid, deadline - time.monotonic())
    return left


def _carries(entry: Path, folder: Path) -> bool:
    wanted = f"{MARK}={folder}".encode()
    try:
        environ = (entry / "environ").read_bytes()
        if not environ and _in_exec(entry):
            # During exec (the start script execs Erlang), a process briefly has no environment.
            poll_until(lambda: not _in_exec(entry), _LONGEST_EXEC, every=_INSTANT)
            environ = (entry / "environ").read_bytes()
    except OSError:
        return False
    return wanted in environ.split(b"\0")


def _in_exec(entry: Path) -> bool:
    """Return whether the process is in the middle of execve (not a zombie or kernel thread)."""
    if not (entry / "exe").is_symlink() or not (entry / "exe").readlink().name:
        return False
    # proc(5): field 50 is env_start, zero until the new program's stack is laid out. The name in
    # field 2 may contain spaces and brackets; field 3 follows its last bracket.
    fields = (entry / "stat").read_text().rpartition(")")[2].split()
    return fields[0] != "Z" and int(fields[47]) == 0


def _gone(pid: int) -> bool:
    """Return whether the process has ended completely.

    Its environment disappears first, its sockets later, so `belongs` is not enough.
    """
    _reap()
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return True
    # A zombie whose other threads (field 20 counts all) still run has not ended yet.
    return fields[0] in "ZX" and int(fields[17]) <= 1


def _reap() -> None:
    for pid, child in list(_children.items()):
        if child.poll() is not None:
            _children.pop(pid, None)
