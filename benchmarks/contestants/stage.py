"""How a contestant's server talks to the harness, and what it measures of itself.

JSON lines, one an event, on standard output; the harness answers on standard input::

    server: {"event": "up"}             clients may come
    server: {"event": "ready"}          all of them are here; waits
    harness: go                         the round's time begins
    server: {"event": "round", ...}     it has ended; waits
    harness: seen                       and so on, from "ready"

So rounds of several contestants can take turns, and nothing that the harness does between them
counts. Only the standard library is used: this runs beside flwr as well.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["ADDRESS_VARIABLE", "Stage", "address", "end_with_parent", "forget_peak", "memory"]

ADDRESS_VARIABLE = "FLMQ_BENCH_ADDRESS"
"""Where the address is: the environment, for a broker's URL has a password in it."""

_PR_SET_PDEATHSIG = 1


def address(name: str = "server") -> str:
    """Return the address that the harness gave; it may be one for each process, by ``name``."""
    return os.environ[ADDRESS_VARIABLE].replace("{name}", name)


def end_with_parent() -> None:
    """Have the kernel end this process with the harness, however that ends (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class Stage:
    """The server's side of the conversation; everything else that it prints goes to its log."""

    def __init__(self) -> None:
        """Take standard output for the conversation alone; remember the idle memory."""
        end_with_parent()
        self._lines = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._idle = memory("VmRSS")
        self._started = self._cpu = 0.0
        self._first = True

    def up(self) -> None:
        """Say that clients may come."""
        self._say(event="up")

    def begin(self) -> None:
        """Wait for one's turn; the round begins when this returns."""
        self._say(event="ready")
        self._hear("go")
        if self._first:
            forget_peak()
            self._first = False
        self._cpu = time.process_time()
        self._started = time.perf_counter()

    def end(self, *, answers: int, is_exact: Callable[[], bool] | None = None) -> None:
        """Say that the round is over, and how many ``answers`` it has.

        ``is_exact`` looks at the result, when all is measured: that is not the round's time.
        """
        measured = {
            "seconds": time.perf_counter() - self._started,
            "cpu": time.process_time() - self._cpu,
            "idle_rss": self._idle,
            "peak_rss": memory("VmHWM"),
        }
        exact = None if is_exact is None else is_exact()
        self._say(event="round", answers=answers, exact=exact, **measured)
        self._hear("seen")

    def _say(self, **fields: object) -> None:
        self._lines.write(json.dumps(fields) + "\n")
        self._lines.flush()

    def _hear(self, word: str) -> None:
        line = sys.stdin.readline().strip()
        if line != word:
            # End of file: the harness has no more use for us.
            sys.exit(f"the harness said {line!r}, not {word!r}")


def memory(field: str) -> int:
    """VmRSS or VmHWM of this process in bytes; without a /proc its peak for both."""
    status = Path("/proc/self/status")
    if not status.exists():
        scale = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale
    for line in status.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise AssertionError(f"/proc/self/status has no {field}")


def forget_peak() -> None:
    """Have the peak count from here: making the model is not part of a round (Linux, proc(5))."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return
