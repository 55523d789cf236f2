"""A process that says what happens, a line of JSON each, and waits for the word to go on."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import Any, NoReturn, Self

from flmq.cli.children import end_with_parent

__all__ = ["Speaking", "SpeakingFailed"]

_ROOT = Path(__file__).resolve().parent.parent
_GRACE = 30.0
"""Seconds to end in order."""
_TAIL = 4000


class SpeakingFailed(Exception):
    """A process did not say or do what it should; with the end of its log."""


class Speaking:
    """A running process; the end of this context manager ends it, in order if it can."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        patience: float,
        env: Mapping[str, str] | None = None,
    ) -> None:
        """Start it, with ``env`` besides this process's own; wait ``patience`` s for each word."""
        self._log = log
        self._patience = patience
        self.started = time.time()
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                argv,
                cwd=_ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                preexec_fn=end_with_parent(),
            )
        self._said: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
        self._ears = threading.Thread(target=self._hear, daemon=True)
        self._ears.start()

    @property
    def pid(self) -> int:
        """Its process."""
        return self._process.pid

    def until(self, what: str) -> dict[str, Any]:
        """Return the next thing of this kind that it says."""
        while True:
            try:
                said = self._said.get(timeout=self._patience)
            except Empty:
                self.fail(f"said nothing for {self._patience:g} s; awaited: {what!r}")
            if said is None:
                self.fail(f"ended before it said {what!r}")
            if said["what"] == what:
                return said

    def fail(self, why: str) -> NoReturn:
        """Raise `SpeakingFailed`, with the end of the log."""
        end = self._log.read_text("utf-8", "replace")[-_TAIL:]
        raise SpeakingFailed(f"{why}; the log ends in:\n{end}")

    def go(self) -> None:
        """Let it go on."""
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def wait(self) -> None:
        """Wait until it has ended by itself."""
        self._process.wait(self._patience)

    def __enter__(self) -> Self:
        """It runs already."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.terminate()
        try:
            self._process.wait(_GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._ears.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            with contextlib.suppress(BrokenPipeError):
                stream.close()

    def _hear(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            # Programs that are not a benchmark's say what they say.
            with contextlib.suppress(json.JSONDecodeError):
                self._said.put(json.loads(line))
        self._said.put(None)
