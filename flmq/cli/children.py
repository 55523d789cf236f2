"""Child processes of a command: detached from its terminal, and ended with it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from flmq.common.environment import METRICS_PORT
from flmq.common.files import append_private

__all__ = ["Children", "end_with_parent"]

_PR_SET_PDEATHSIG = 1
_PATIENCE = 5.0
"""Seconds that a child has to end gracefully before it is killed."""


class Children:
    """Child processes by name. On Linux none outlives this process, even if it is killed."""

    def __init__(self, env: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Start children with the environment variables ``env`` in addition to this process's own.

        ``clock`` gives seconds, to limit how long they are waited for.
        """
        self._clock = clock
        self._env = {**os.environ, **env}
        self._env.pop(METRICS_PORT, None)  # it is for one process: ours
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        argv: Sequence[str],
        log: Path | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start ``argv`` as ``name``, with output to the file ``log``, or to our own output.

        ``env`` is for this child alone, besides what all have.
        """
        output = None if log is None else append_private(log)
        try:
            self._processes[name] = subprocess.Popen(
                argv,
                env={**self._env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Only this process gets Ctrl-C: it ends the children gracefully.
                start_new_session=True,
                preexec_fn=end_with_parent(),
            )
        finally:
            if output is not None:
                output.close()

    def running(self, name: str) -> bool:
        """Return whether the child is alive."""
        return self._processes[name].poll() is None

    def exit_status(self, name: str) -> int | None:
        """Return the exit status (negative: the signal that ended it); None while it runs."""
        return self._processes[name].poll()

    def kill(self, name: str) -> None:
        """Kill it with SIGKILL."""
        self._processes[name].kill()
        self._processes[name].wait()

    def interrupt(self, name: str) -> None:
        """Ask it to end with SIGTERM (a shell may have made us ignore SIGINT)."""
        if self.running(name):
            self._processes[name].terminate()

    def wait(self, names: Sequence[str], timeout: float) -> None:
        """Give children up to ``timeout`` seconds to end by themselves."""
        deadline = self._clock() + timeout
        for name in names:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._processes[name].wait(max(0.0, deadline - self._clock()))

    def wait_all(self, timeout: float) -> None:
        """Give all children up to ``timeout`` seconds to end by themselves."""
        self.wait(list(self._processes), timeout)

    def end(self, patience: float = _PATIENCE) -> None:
        """End all that still run: SIGTERM first, and after ``patience`` seconds SIGKILL."""
        self._end(signal.SIGTERM, patience)

    def end_at_once(self) -> None:
        """End all that still run, without time for what they are at: as Ctrl-C, then SIGKILL."""
        self._end(signal.SIGINT, _PATIENCE)

    def _end(self, number: signal.Signals, patience: float) -> None:
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(number)
        self.wait_all(patience)
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def end_with_parent() -> Callable[[], object] | None:
    """Return what a child calls before exec, to be killed when the thread that starts it dies.

    None where the kernel cannot do that: it is for ``preexec_fn`` of `subprocess.Popen`.
    """
    if not sys.platform.startswith("linux"):
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)
