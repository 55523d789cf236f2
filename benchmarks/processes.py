"""One contestant on stage: its server's and its clients' processes, and the talk with the server.

The talk's words are in `benchmarks.contestants.stage`. Whatever happens, `close` ends everything.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.cells import Cell
from benchmarks.contenders import Contestant
from benchmarks.contestants.stage import ADDRESS_VARIABLE
from benchmarks.meters import cpu_seconds, peak_memory
from benchmarks.results import Round

__all__ = ["ContestantFailed", "Processes"]

_ROOT = Path(__file__).resolve().parent.parent
_GRACE = 5.0
"""Seconds to end in order, before they are told to, and again before they are killed."""


class ContestantFailed(Exception):
    """A contestant's process ended, said nothing for too long, or lost replies."""


class Processes:
    """A contestant's processes for one cell. A context manager."""

    def __init__(
        self,
        contestant: Contestant,
        cell: Cell,
        rounds: int,
        *,
        broker_url: str,
        broker_pid: int | None,
        logs: Path,
        patience: float,
    ) -> None:
        """Plan ``rounds`` rounds, the warm-up with them; each step may take ``patience`` s."""
        self.contestant = contestant
        self._cell = cell
        self._broker_pids = [] if broker_pid is None else [broker_pid]
        self._log = logs / f"{contestant.name}-{cell.clients}x{cell.model_bytes}.log"
        self._patience = patience
        self._commands = (
            contestant.server(cell, rounds),
            [contestant.client(cell, number) for number in range(cell.clients)],
        )
        self._env = {
            **os.environ,
            ADDRESS_VARIABLE: contestant.address(broker_url),
            "FLWR_TELEMETRY_ENABLED": "0",
        }
        self._server: subprocess.Popen[str] | None = None
        self._clients: list[subprocess.Popen[str]] = []
        self._events: queue.Queue[dict[str, Any]] = queue.Queue()
        self._last: dict[str, Any] = {}
        self._played_all = False
        self.exact: bool | None = None
        """Whether the mean of equal models always had their bits; None: there is no mean."""

    @property
    def server_pid(self) -> int:
        """The server's process."""
        assert self._server is not None
        return self._server.pid

    @property
    def client_pids(self) -> list[int]:
        """The clients' processes."""
        return [client.pid for client in self._clients]

    def start(self) -> None:
        """Start the server, then its clients, and wait until the first round could begin."""
        server, clients = self._commands
        self._server = self._start(server, talks=True)
        threading.Thread(target=self._listen, daemon=True).start()
        self._expect("up")
        self._clients = [self._start(client, talks=False) for client in clients]
        self._expect("ready")

    def play(self, *, more: bool) -> Round:
        """Have one round; with ``more``, wait until the next one could begin."""
        before = self._cpu()
        self._tell("go")
        said = self._expect("round")
        after = self._cpu()
        self._last = said
        if said["answers"] != self._cell.clients:
            raise ContestantFailed(
                f"{said['answers']} of {self._cell.clients} clients answered: see {self._log}"
            )
        self.exact = said["exact"] if self.exact is not False else False
        if more:
            self._tell("seen")
            self._expect("ready")
        else:
            self._played_all = True
        clients, broker = (
            None if a is None or b is None else round(b - a, 2)
            for a, b in zip(before, after, strict=True)
        )
        return Round(said["seconds"], said["cpu"], clients, broker)

    def memory(self) -> tuple[int, int, int | None]:
        """Return bytes: the server's when idle and at its peak, and the largest client's peak."""
        peaks = [peak_memory(pid) for pid in self.client_pids]
        known = [peak for peak in peaks if peak is not None]
        return self._last["idle_rss"], self._last["peak_rss"], max(known, default=None)

    def close(self) -> None:
        """Let the server end in order, which clears up on the broker; end whatever is left."""
        if self._server is not None:
            assert self._server.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                if self._played_all:
                    self._server.stdin.write("seen\n")
                # At the end of its input it leaves, wherever it waits.
                self._server.stdin.close()
            _await_end([self._server], _GRACE)
        everybody = [*([] if self._server is None else [self._server]), *self._clients]
        _await_end(self._clients, _GRACE if self._played_all else 0.0)
        for process in everybody:
            process.terminate()
        _await_end(everybody, _GRACE)
        for process in everybody:
            process.kill()
            process.wait()
        if self._server is not None and self._server.stdout is not None:
            self._server.stdout.close()

    def __enter__(self) -> Self:
        """Nothing is started yet."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything."""
        self.close()

    def _start(self, command: list[str], *, talks: bool) -> subprocess.Popen[str]:
        with self._log.open("a", encoding="utf-8") as log:
            return subprocess.Popen(
                command,
                cwd=_ROOT,
                env=self._env,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                text=True,
                # Ctrl-C goes to the harness, which ends them.
                start_new_session=True,
            )

    def _listen(self) -> None:
        assert self._server is not None
        assert self._server.stdout is not None
        for line in self._server.stdout:
            self._events.put(json.loads(line))

    def _expect(self, event: str) -> dict[str, Any]:
        deadline = time.monotonic() + self._patience
        while time.monotonic() < deadline:
            try:
                said = self._events.get(timeout=0.5)
            except queue.Empty:
                self._see_all_alive()
                continue
            if said["event"] != event:
                raise ContestantFailed(f"said {said['event']!r} instead of {event!r}")
            return said
        raise ContestantFailed(f"not {event!r} within {self._patience:g} s; {self._end_of_log()}")

    def _tell(self, word: str) -> None:
        assert self._server is not None
        assert self._server.stdin is not None
        try:
            self._server.stdin.write(word + "\n")
            self._server.stdin.flush()
        except BrokenPipeError:
            self._see_all_alive()
            raise ContestantFailed(f"its server hears nothing; {self._end_of_log()}") from None

    def _see_all_alive(self) -> None:
        for role, processes in (("server", [self._server]), ("client", self._clients)):
            for process in processes:
                if process is not None and process.poll() is not None:
                    raise ContestantFailed(
                        f"a {role} ended with status {process.returncode}; {self._end_of_log()}"
                    )

    def _end_of_log(self) -> str:
        lines = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        return "its log ends: " + (" / ".join(lines[-3:]) or "(empty)")

    def _cpu(self) -> tuple[float | None, float | None]:
        broker = cpu_seconds(self._broker_pids) if self._broker_pids else None
        return cpu_seconds(self.client_pids), broker if self.contestant.on_broker else 0.0


def _await_end(processes: Sequence[subprocess.Popen[str]], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, deadline - time.monotonic()))
