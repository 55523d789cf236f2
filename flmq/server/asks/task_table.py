"""Which task belongs to which phase in flight: shared by who asks and who listens."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Iterable

from flmq.common.phase import Phase
from flmq.round import TaskState
from flmq.server.asks.phase_in_flight import PhaseInFlight

__all__ = ["TaskTable"]

_ASIDE = 1_000_000
_REMEMBERED = 64
"""Closed phases whose late replies are still called late; to older ones nobody sent the task."""


class TaskTable:
    """Thread-safe. Its ``lock`` guards every `PhaseInFlight` in it as well."""

    def __init__(self) -> None:
        """Begin empty."""
        self.lock = threading.Lock()
        self._tasks: dict[str, tuple[PhaseInFlight, str]] = {}
        self._gathers: OrderedDict[int, tuple[PhaseInFlight, list[str]]] = OrderedDict()
        self._calls: Counter[tuple[int, Phase, bool]] = Counter()

    def next_call(self, server_round: int, phase: Phase, *, own: bool) -> int:
        """How often this phase of this round was opened before.

        The server's ``own`` phases, which a journal replays, are counted apart from those that a
        strategy opens through proxies, which are not.
        """
        with self.lock:
            call = self._calls[server_round, phase, own]
            self._calls[server_round, phase, own] += 1
        return call if own else _ASIDE + call

    def peek_call(self, server_round: int, phase: Phase, *, own: bool) -> int:
        """What `next_call` would return."""
        with self.lock:
            call = self._calls[server_round, phase, own]
        return call if own else _ASIDE + call

    def add(self, gather: PhaseInFlight, tasks: Iterable[tuple[str, str]]) -> None:
        """Enter a phase with its (task id, client id) pairs."""
        pairs = dict(tasks)
        with self.lock:
            self._tasks.update((task, (gather, client)) for task, client in pairs.items())
            self._gathers[id(gather)] = (gather, list(pairs))
            while len(self._gathers) > _REMEMBERED and self._forget_oldest():
                pass

    def find(self, task_id: str) -> tuple[PhaseInFlight, str] | None:
        """The phase of a task, and the client that was asked; None: nobody sent that task."""
        with self.lock:
            return self._tasks.get(task_id)

    def behind(self, client_ids: Iterable[str]) -> dict[str, str]:
        """Which of these clients have not answered what they were asked last, and what that was."""
        left = set(client_ids)
        found: dict[str, str] = {}
        with self.lock:
            for gather, _ in reversed(self._gathers.values()):
                for client_id in left & gather.round.tasks.keys():
                    left.discard(client_id)
                    if gather.round.tasks[client_id] is TaskState.SILENT:
                        found[client_id] = f"round {gather.server_round}, {gather.phase.value}"
        return found

    def open_gathers(self) -> list[PhaseInFlight]:
        """The phases that have not been closed. Call it with the lock held."""
        return [gather for gather, _ in self._gathers.values() if not gather.done.is_set()]

    def _forget_oldest(self) -> bool:
        """Forget the oldest phase that is closed, if there is one."""
        for key, (gather, tasks) in self._gathers.items():
            if gather.done.is_set():
                del self._gathers[key]
                for task in tasks:
                    self._tasks.pop(task, None)
                return True
        return False
