"""A program: Python without what Unix alone has, as near to Windows as it gets, and flmq in it.

``python -m tests.not_unix FOLDER`` runs a federation over a broker in memory, with folders of a run
and of clients below FOLDER, and prints how it went. The standard library and filelock are imported
first: on Windows they do without these by themselves.
"""

from __future__ import annotations

import contextlib
import ctypes
import logging.handlers
import mmap
import os
import pathlib
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from typing import Any

import filelock
import numpy as np

_USED = (filelock, logging, mmap, pathlib, shutil, socket, sqlite3, subprocess, tempfile)
MODULES = ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "syslog")
OF_OS = """
O_CLOEXEC O_DIRECTORY O_TMPFILE chown fchown fork forkpty getegid getgid getpgid getuid killpg
openpty pidfd_open posix_fadvise posix_fallocate pread preadv pwrite pwritev register_at_fork
sched_getaffinity sendfile setsid statvfs sysconf uname wait wait3 wait4 waitid
"""
OF_SIGNAL = ("SIGKILL", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGCHLD", "SIGALRM", "SIGPIPE")


class _Absent(MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name in MODULES:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def _not_in_use(change: Callable[..., None]) -> Callable[..., None]:
    """Windows removes and moves no file that is open or mapped, and replaces none."""

    def changed(*paths: Any, **kwargs: Any) -> None:
        in_use = set(_opened())
        for line in pathlib.Path("/proc/self/maps").read_text().splitlines():
            in_use.add(line.split(maxsplit=5)[-1])
        for path in paths:
            if os.path.realpath(path) in in_use:
                raise PermissionError(13, "The process cannot access the file", str(path))
        change(*paths, **kwargs)

    return changed


def _opened() -> Iterator[str]:
    for entry in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            yield str(entry.readlink())


def take_away() -> None:
    """Have no more than Windows has."""
    for name in MODULES:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _Absent())
    for module, names in ((os, OF_OS.split()), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    really_open, really_load = os.open, ctypes.CDLL

    def open_no_folder(path: Any, flags: int, *args: Any, **kwargs: Any) -> int:
        if pathlib.Path(path).is_dir():
            raise PermissionError(13, "Permission denied", str(path))
        return really_open(path, flags, *args, **kwargs)

    def load(name: Any, *args: Any, **kwargs: Any) -> ctypes.CDLL:
        if name is None:
            raise TypeError("argument of type 'NoneType' is not iterable")
        return really_load(name, *args, **kwargs)

    os.open, ctypes.CDLL = open_no_folder, load  # type: ignore[assignment,misc]
    for name in ("unlink", "remove", "rename", "replace"):
        setattr(os, name, _not_in_use(getattr(os, name)))
    sys.platform = "no unix"


def check(folder: pathlib.Path) -> None:
    """That it was taken away: a test of nothing would pass as well."""
    for line in ("import fcntl", "os.sysconf('SC_PAGE_SIZE')", "os.fork()", "signal.SIGKILL"):
        try:
            exec(line)
        except (ImportError, AttributeError):
            continue
        raise AssertionError(f"{line} works")
    path = folder / "open"
    for change in (path.unlink, lambda: path.replace(folder / "moved")):
        with path.open("w"):
            try:
                change()
            except PermissionError:
                continue
            raise AssertionError("an open file can be changed")
    path.unlink()


def federation(folder: pathlib.Path) -> str:
    """Two rounds of two clients with folders; the model's first number."""
    from flmq.client import ClientContext, NumPyClient
    from flmq.client.options import WorkerOptions
    from flmq.client.serving.worker import Worker
    from flmq.common import Config, Metrics, NDArrays, ndarrays_to_parameters
    from flmq.journal import list_runs
    from flmq.observe.bus import EventBus
    from flmq.server import ServerAppComponents, ServerConfig
    from flmq.server.lifecycle.run import run_server
    from flmq.server.options import RunOptions
    from flmq.server.strategy import FedAvg
    from flmq.transport.memory import MemoryBroker, MemoryTransport

    class Adding(NumPyClient):
        def __init__(self, context: ClientContext) -> None:
            assert context.state_dir is not None

        def fit(self, parameters: NDArrays, config: Config) -> tuple[NDArrays, int, Metrics]:
            return [parameters[0] + 1], 1, {}

        def evaluate(self, parameters: NDArrays, config: Config) -> tuple[float, int, Metrics]:
            return float(parameters[0][0]), 1, {}

    broker = MemoryBroker()
    transports = [MemoryTransport(broker) for _ in range(3)]
    workers = [
        Worker(
            transports[i],
            Adding,
            {f"c{i}": {}},
            WorkerOptions(state_dir=folder / "state", cache_dir=folder / "cache"),
        )
        for i in range(2)
    ]
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    bus = EventBus(())
    try:
        model = [np.zeros(1 << 19, np.float32)]  # 2 MiB: files, chunks, a stream, a cache
        parts = ServerAppComponents(
            strategy=FedAvg(initial_parameters=ndarrays_to_parameters(model)),
            config=ServerConfig(num_rounds=2),
        )
        options = RunOptions(job="j", runs_dir=folder / "runs", clients=2)
        history = run_server(transports[2], parts, options, bus=bus, broker="in memory")
    finally:
        for worker in workers:
            worker.stop()
        for thread in threads:
            thread.join()
        bus.close()
        for transport in transports:
            transport.close()
    (run,) = list_runs(folder / "runs")
    return f"{run.state.value} after {run.rounds}: {history.losses_distributed}"


def main() -> None:
    """Do both."""
    take_away()
    check(pathlib.Path(sys.argv[1]))
    import flmq.cli.main
    import flmq.client
    import flmq.server
    import flmq.simulation
    import flmq.testing  # noqa: F401

    print(federation(pathlib.Path(sys.argv[1])))


if __name__ == "__main__":
    main()
