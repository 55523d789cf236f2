"""The memory of the machine, or of the control group that this process runs in."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["available_memory", "total_memory"]

_GROUP = Path("/sys/fs/cgroup/memory.max")
_MEMINFO = Path("/proc/meminfo")
_ASSUMED = 4 << 30
"""Bytes of memory to assume if the system does not say, as on Windows."""


def total_memory() -> int:
    """Return the bytes of memory that all processes of this machine, or control group, may use."""
    limits = [_memory_of_machine()]
    if _GROUP.exists() and (text := _GROUP.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


def _memory_of_machine() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return _ASSUMED


def available_memory() -> int:
    """Return the bytes of memory that a process may still allocate here."""
    limits = [total_memory()]
    for line in _MEMINFO.read_text().splitlines() if _MEMINFO.exists() else ():
        if line.startswith("MemAvailable:"):
            limits.append(int(line.split()[1]) * 1024)
    return min(limits)
