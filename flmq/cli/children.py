"""Child processes of a command: started apart from its terminal, and ended with it."""

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

from flmq.common.files import append_private

__all__ = ["Children"]

_PR_SET_PDEATHSIG = 1
_PATIENCE = 5.0
"""Seconds that a child has to end in order before it is killed."""


class Children:
    """Processes by name. On Linux none outlives this process, not even if it is killed."""

    def __init__(self, env: Mapping[str, str], clock: Callable[[], float] = time.monotonic) -> None:
        """Start children with the variables ``env`` besides this process's own.

        ``clock`` gives seconds, for how long they are waited for.
        """
        self._clock = clock
        self._env = {**os.environ, **env}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Sequence[str], log: Path | None = None) -> None:
        """Start ``argv`` as ``name``, writing to the file ``log``, or to our own output."""
        output = None if log is None else append_private(log)
        try:
            self._processes[name] = subprocess.Popen(
                argv,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                # Ctrl-C goes to us alone: we end them in order.
                start_new_session=True,
                preexec_fn=_end_with_parent(),
            )
        finally:
            if output is not None:
                output.close()

    def running(self, name: str) -> bool:
        """Whether the child is alive."""
        return self._processes[name].poll() is None

    def exit_status(self, name: str) -> int | None:
        """Its exit status; negative: the signal that ended it; None while it runs."""
        return self._processes[name].poll()

    def kill(self, name: str) -> None:
        """``kill -9``: it ends without a word."""
        self._processes[name].kill()
        self._processes[name].wait()

    def interrupt(self, name: str) -> None:
        """Ask it to end in order: by SIGTERM, for a shell may have had us ignore SIGINT."""
        if self.running(name):
            self._processes[name].terminate()

    def wait(self, names: Sequence[str], timeout: float) -> None:
        """Give children up to ``timeout`` seconds to end by themselves."""
        deadline = self._clock() + timeout
        for name in names:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._processes[name].wait(max(0.0, deadline - self._clock()))

    def end(self) -> None:
        """End all that still run: SIGTERM first, SIGKILL for those that do not obey."""
        for process in self._processes.values():
            if process.poll() is None:
                process.terminate()
        self.wait(list(self._processes), _PATIENCE)
        for process in self._processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


def _end_with_parent() -> Callable[[], object] | None:
    """For the child, before exec: have the kernel end it when this process dies, where it can."""
    if not sys.platform.startswith("linux"):
        return None
    return partial(ctypes.CDLL(None).prctl, _PR_SET_PDEATHSIG, signal.SIGKILL)
