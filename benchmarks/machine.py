"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.contenders import flower_version
from flmq.broker.find import Broker
from flmq.broker.probe import ask_broker
from flmq.common.urls import parse_broker_url

__all__ = ["describe", "load_average"]

_ROOT = Path(__file__).resolve().parent.parent
_DISK_BYTES = 256 * 1024 * 1024


def describe(broker: Broker) -> dict[str, str]:
    """Return what one must know to compare figures, by its name."""
    facts = ask_broker(parse_broker_url(broker.url))
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "memory": f"{_memory() / 2**30:.0f} GiB",
        "disk": _disk(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "broker": f"{facts.product} {facts.version}, {broker.origin.value}, over loopback",
        "Python": platform.python_version(),
        "flmq": f"{_version('flmq')} {_commit()}".strip(),
        "Flower": flower_version() or "not installed",
        "pika": _version("pika"),
        "numpy": _version("numpy"),
        "load before": load_average(),
    }


def load_average() -> str:
    """Processes that wanted to run, on average over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown processor"
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _disk() -> str:
    """The file system of the temporary folder, where a private node has its data, and its speed."""
    folder = Path(tempfile.gettempdir())
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        block = os.urandom(1 << 20)
        started = time.perf_counter()
        for _ in range(_DISK_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        speed = _DISK_BYTES / (time.perf_counter() - started)
    return f"{_file_system(folder)}, {speed / 1e6:.0f} MB/s written and synced"


def _file_system(folder: Path) -> str:
    try:
        rows = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown file system"
    above = [row for row in rows if folder.is_relative_to(row[1])]
    return max(above, key=lambda row: len(row[1]))[2] if above else "unknown file system"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str:
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"({done.stdout.strip()})"
