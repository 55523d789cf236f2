"""Look up a task: its phase in flight, its ask, and the fate of a reply to it."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from flmq.round import JobState, PhaseKey, client_of
from flmq.round.fates import Fate
from flmq.round.job_events import Recorded
from flmq.server.job.phase_in_flight import PhaseInFlight
from flmq.server.replies.reply_edges import ReplyRecord
from flmq.server.strategy.reply_check import ParametersSpec
from flmq.wire import Reply

__all__ = ["TaskDirectory"]


class TaskDirectory:
    """The tasks of one job. Thread-safe; ``lock`` guards the state and every phase in flight."""

    def __init__(self, state: JobState, record: ReplyRecord | None) -> None:
        """Look in ``state``, then in ``record`` (None: no record) for phases not in memory."""
        self.lock = threading.Lock()
        self.state = state
        self._record = record
        self._phases: dict[PhaseKey, PhaseInFlight] = {}
        self._orders: dict[str, tuple[PhaseKey, str]] = {}
        self.sent_before: ParametersSpec | None = None
        """The spec of what a phase sent that is no longer in memory; None: not known."""

    def add(self, phase: PhaseInFlight) -> None:
        """Add a phase that the state has just opened. Call it with the lock held."""
        self._phases[phase.key] = phase
        self.await_orders({i: (phase.key, each.site) for i, each in phase.orders.items()})

    def await_orders(self, orders: Mapping[str, tuple[PhaseKey, str]]) -> None:
        """Know orders, by id: of which phase, and to the aggregator of which site."""
        self._orders.update(orders)

    def order_of(self, order_id: str) -> tuple[PhaseKey, str] | None:
        """Return the phase and the site of an order; None: not in memory."""
        with self.lock:
            return self._orders.get(order_id)

    def forget(self) -> None:
        """Forget the phases that the state has forgotten. Call it with the lock held."""
        for key in self.state.memory.forgotten():
            phase = self._phases.pop(key, None)
            if phase is not None:
                self.sent_before = next(iter(phase.specs.values()), self.sent_before)
            for order_id in () if phase is None else phase.orders:
                self._orders.pop(order_id, None)

    def phase(self, key: PhaseKey) -> PhaseInFlight | None:
        """Return a phase that is open or closed recently; None: not in memory."""
        return self._phases.get(key)

    def open_phases(self) -> list[PhaseInFlight]:
        """Return the phases that have not closed. Call it with the lock held."""
        return [each for each in self._phases.values() if not each.done.is_set()]

    def phase_of(self, task_id: str) -> tuple[PhaseInFlight, str] | None:
        """Return a task's phase and the name of its ask; None: not in memory."""
        with self.lock:
            found = self.state.phase_of(task_id)
            phase = None if found is None else self._phases.get(found[0])
            return None if found is None or phase is None else (phase, found[1])

    def asked(self, task_id: str) -> tuple[PhaseKey, str] | None:
        """Return a task's phase and client; None: not in memory, though perhaps in the record."""
        with self.lock:
            found = self.state.phase_of(task_id)
        return None if found is None else (found[0], client_of(found[1]))

    def recorded(self, reply: Reply) -> Recorded | None:
        """Return what the record has of a reply's phase; None: nothing, or it is in memory."""
        with self.lock:
            is_known = self.state.phase_of(reply.task_id) is not None
        return None if is_known or self._record is None else self._record.recorded(reply)

    def fate_of(self, reply: Reply) -> Fate:
        """Return the fate that a reply would have if it were complete."""
        recorded = self.recorded(reply)
        with self.lock:
            return self.state.fate_of(reply.task_id, recorded)

    def may_want(self, task_id: str) -> bool:
        """Return whether a reply to this task that is still arriving may count."""
        with self.lock:
            return task_id in self._orders or self.state.may_want(task_id)

    def is_over(self, task_id: str) -> bool:
        """Return whether replies to this task are no longer awaited."""
        found = self.phase_of(task_id)
        if found is not None:
            return found[0].done.is_set()
        with self.lock:
            if task_id in self._orders:
                return False  # while its phase is in memory, its clients are told what it was
            return self.state.phase_of(task_id) is None
