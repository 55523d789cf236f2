"""Programs run as a user runs them: by their commands, with the virtual environment active."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

BIN = Path(sys.executable).parent


def environment(broker_url: str) -> dict[str, str]:
    """What a shell has in which the virtual environment is active and the broker is named."""
    path = os.pathsep.join([str(BIN), os.environ.get("PATH", "")])
    return {
        **os.environ,
        "PATH": path,
        "FLMQ_BROKER_URL": broker_url,
        "PYTHONFAULTHANDLER": "1",
    }


class Commands:
    """Commands of flmq over one virtual host, in one folder, with the repository's modules."""

    def __init__(self, url: str, folder: Path, **more: str) -> None:
        """Run them in ``folder`` with ``more`` in their environment; `end` ends them."""
        self.url = url
        self.folder = folder
        self._env = {
            **environment(url),
            "FLMQ_HEARTBEAT": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
            **more,
        }
        self._all: list[tuple[subprocess.Popen[bytes], Path]] = []

    def run(self, *arguments: str, **more: str) -> subprocess.Popen[bytes]:
        """Start ``flmq`` with these arguments, and ``more`` in its environment."""
        output = self.folder / f"output-{len(self._all)}"
        command = [sys.executable, "-m", "flmq", *arguments]
        process = start(command, output, self.folder, {**self._env, **more})
        self._all.append((process, output))
        return process

    def output(self, process: subprocess.Popen[bytes]) -> str:
        """What a process has written so far."""
        return next(o for p, o in self._all if p is process).read_text(encoding="utf-8")

    def outputs(self) -> str:
        """What all have written so far."""
        return "\n".join(output.read_text(encoding="utf-8") for _, output in self._all)

    def end(self) -> None:
        """Kill what is still there."""
        for process, _ in self._all:
            if process.poll() is None:
                process.kill()
            process.wait()


def open_to_others(*folders: Path) -> list[Path]:
    """What in these folders, or they themselves, others than their owner may read or write."""
    every = [path for folder in folders for path in (folder, *folder.rglob("*"))]
    assert every
    return [path for path in every if path.stat().st_mode & 0o077]


def run_together(
    commands: Sequence[Sequence[str]],
    folder: Path,
    env: Mapping[str, str],
    timeout: float = 120.0,
) -> list[str]:
    """Run commands at the same time; all must succeed. Returns what each wrote, in order."""
    processes, outputs = [], [folder / f"output-{i}" for i in range(len(commands))]
    try:
        for command, output in zip(commands, outputs, strict=True):
            processes.append(start(command, output, folder, env))
        wait_for_all(processes, timeout)
    finally:
        for process in processes:
            # Who has not ended by now says where it hangs (PYTHONFAULTHANDLER).
            process.send_signal(signal.SIGABRT)
            process.wait()
        written = [output.read_text(encoding="utf-8") for output in outputs if output.exists()]
        everything = "\n".join(written)
    for command, process in zip(commands, processes, strict=True):
        assert process.returncode == 0, f"{shlex.join(command)} failed; all wrote:\n{everything}"
    return written


def wait_for_all(processes: Sequence[subprocess.Popen[bytes]], timeout: float) -> None:
    """Wait until all have ended, one has failed, or ``timeout`` seconds are over."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        statuses = [process.poll() for process in processes]
        if None not in statuses or any(status for status in statuses):
            return
        time.sleep(0.05)


def start(
    command: Sequence[str], output: Path, folder: Path, env: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    with output.open("wb") as file:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
