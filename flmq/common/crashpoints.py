"""Named points in the code where tests kill the process, as ``kill -9`` would.

``FLMQ_CRASH_AT=worker.spooled:2`` kills it the second time it reaches that point. Without the
variable, a crash point costs one look at a constant.
"""

from __future__ import annotations

import os
import signal

__all__ = ["CRASH_AT", "crash_point"]

CRASH_AT = "FLMQ_CRASH_AT"


def _parse(text: str) -> dict[str, int]:
    """Parse names and the visit at which each kills; ``name`` alone means the first."""
    wanted: dict[str, int] = {}
    for part in filter(None, text.split(",")):
        name, _, visit = part.partition(":")
        wanted[name] = int(visit or 1)
    return wanted


_WANTED = _parse(os.environ.get(CRASH_AT, ""))


def crash_point(name: str) -> None:
    """Kill the process here, without any cleanup, if the environment asks for it."""
    if not _WANTED or name not in _WANTED:
        return
    _WANTED[name] -= 1
    if _WANTED[name] == 0:
        # SIGKILL; on Windows, which lacks it, the signal that terminates a process.
        os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
