"""What processes use, read from /proc, and what a broker's connections carry.

Where there is no /proc, or the broker runs elsewhere, a figure is None: not known.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flmq.broker.find import Broker

__all__ = [
    "Traffic",
    "available_memory",
    "cpu_seconds",
    "peak_memory",
    "resident_memory",
    "traffic",
]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Bytes that a broker has received from processes, and sent to them."""

    received: int
    sent: int


def cpu_seconds(pids: Iterable[int]) -> float | None:
    """User and system time of the processes so far, in seconds, to 10 ms each."""
    ticks = 0
    for pid in pids:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        except OSError:
            return None
        # The command's name, in parentheses, may have spaces in it: proc(5).
        fields = stat.rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / os.sysconf("SC_CLK_TCK")


def peak_memory(pid: int) -> int | None:
    """Largest resident size of a process so far, in bytes (VmHWM)."""
    return _status_bytes(pid, "VmHWM:")


def resident_memory(pid: int) -> int | None:
    """Resident size of a process now, in bytes (VmRSS)."""
    return _status_bytes(pid, "VmRSS:")


def _status_bytes(pid: int, name: str) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return None
    for line in status.splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024
    return None


def available_memory() -> int | None:
    """Bytes that could be taken now without swapping."""
    try:
        info = Path("/proc/meminfo").read_text(encoding="ascii")
    except OSError:
        return None
    for line in info.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def traffic(broker: Broker, pids: Iterable[int]) -> Traffic | None:
    """Return what the open connections of the processes have carried; of a private node alone.

    Asks the node itself, so it counts what crossed the sockets: chunks, tasks and headers.
    """
    if broker.node is None:
        return None
    ports = _local_ports(pids)
    rows = broker.node.ctl("list_connections", "peer_port", "recv_oct", "send_oct").splitlines()
    numbers = [tuple(map(int, row.split())) for row in rows if row.replace("\t", "").isdigit()]
    mine = [(received, sent) for port, received, sent in numbers if port in ports]
    return Traffic(sum(received for received, _ in mine), sum(sent for _, sent in mine))


def _local_ports(pids: Iterable[int]) -> set[int]:
    """The TCP ports, on this side, of the processes' connections."""
    inodes = {inode for pid in pids for inode in _socket_inodes(pid)}
    ports = set()
    for table in (Path("/proc/net/tcp"), Path("/proc/net/tcp6")):
        if not table.exists():
            continue
        for line in table.read_text(encoding="ascii").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _socket_inodes(pid: int) -> list[str]:
    inodes = []
    for each in Path(f"/proc/{pid}/fd").glob("*"):
        try:
            target = each.readlink().name
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.append(target[len("socket:[") : -1])
    return inodes
