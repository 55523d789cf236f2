"""Find the ask of a late reply in closed phases, without reading their closing sets each time.

A closing set is final, so it is read once and kept as an index by task id: a late reply costs the
same whether ten clients were asked or ten thousand.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from flmq.common.phase import Phase
from flmq.journal.phases import PhaseReader
from flmq.journal.records import PhaseKey
from flmq.round import Outcome

__all__ = ["ClosedAsk", "ClosedAsks"]

_KEPT = 4
"""Kinds of phases of a round whose asks are kept in memory, those that were looked up last."""
_UNANSWERED = (Outcome.SILENT, Outcome.UNROUTABLE)


@dataclass(frozen=True, slots=True)
class ClosedAsk:
    """An ask of a closed phase."""

    key: PhaseKey
    name: str
    in_time: bool
    """Whether it was answered before the phase closed."""


@dataclass(slots=True)
class _Index:
    asks: dict[str, ClosedAsk] = field(default_factory=dict)
    """By task id."""
    phases: set[PhaseKey] = field(default_factory=set)
    """Those whose asks are in it."""


class ClosedAsks:
    """The asks of a job's closed phases, by task id. Not thread-safe."""

    def __init__(self, phases: PhaseReader, task_id: Callable[[PhaseKey, str], str]) -> None:
        """Read ``phases``; ``task_id`` derives the id of a phase's task from its ask's name."""
        self._phases = phases
        self._task_id = task_id
        self._indexes: OrderedDict[tuple[int, Phase], _Index] = OrderedDict()

    def find(self, server_round: int, phase: Phase, task_id: str) -> ClosedAsk | None:
        """Return the ask with this task id; None if no closed phase of this kind has it."""
        index = self._indexes.setdefault((server_round, phase), _Index())
        self._indexes.move_to_end((server_round, phase))
        while len(self._indexes) > _KEPT:
            self._indexes.popitem(last=False)
        if task_id not in index.asks:
            self._read_on(index, server_round, phase)
        return index.asks.get(task_id)

    def _read_on(self, index: _Index, server_round: int, phase: Phase) -> None:
        """Add the phases that have closed since."""
        for key in self._phases.closed_calls(server_round, phase):
            if key in index.phases:
                continue
            closed = self._phases.closed(key)
            assert closed is not None, "it is among the closed ones"
            for each in closed.outcomes:
                in_time = each.outcome not in _UNANSWERED
                found = ClosedAsk(key, each.client_id, in_time)
                index.asks[self._task_id(key, each.client_id)] = found
            index.phases.add(key)
