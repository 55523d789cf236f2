"""The page beside a run: a process of its own, which can neither slow the run nor stop it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flmq.cli.children import end_with_parent
from flmq.cli.ui import DEFAULT_PORT
from flmq.common.environment import BROKER_URL, METRICS_PORT
from flmq.common.logger import logger
from flmq.common.options import option

__all__ = ["Beside"]

_END = 5.0
_LONGEST = 4096


@dataclass(frozen=True, slots=True)
class Beside:
    """Whether a page is served beside a run."""

    ui: bool = option(
        False, "Show the runs on a page, on this machine (needs the extra `ui`).", names=("--ui",)
    )
    ui_port: int = option(
        DEFAULT_PORT, "The page's port; 0: any that is free.", at_least=0, at_most=65535
    )

    @contextlib.contextmanager
    def shown(
        self, runs_dir: Path | None, broker: str, say: Callable[[str], None]
    ) -> Iterator[None]:
        """Serve the page on loopback while the block runs; ``say`` gets the line with its URL.

        A page that cannot be served is a line of the log: the run goes on without it.
        """
        if not self.ui:
            yield
            return
        process = _started(runs_dir, self.ui_port, broker)
        # A run waits for no page.
        listening = threading.Thread(target=_listen, args=(process, say), daemon=True)
        listening.start()
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            listening.join(_END)


def _started(runs_dir: Path | None, port: int, broker: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "flmq", "ui", f"--runs-dir={runs_dir}", f"--port={port}"]
    # By the environment: other users of this machine can read command lines.
    environment = {**os.environ, BROKER_URL: broker}
    environment.pop(METRICS_PORT, None)
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # Ctrl-C is for the server, which ends it
        preexec_fn=end_with_parent(),
    )


def _listen(process: subprocess.Popen[bytes], say: Callable[[str], None]) -> None:
    """Say the URL that the process writes, or why there is none."""
    assert process.stdout is not None
    with process.stdout as output:
        line = output.readline(_LONGEST).decode(errors="replace").strip()
    if "://" in line:
        logger.info("%s", line)
        say(line)
    elif line:
        told = f"no page is served, the run goes on without: {line}"
        logger.warning("%s", told)
        say(told)
