"""Count late and duplicate replies in a round's counts: most come after the round has closed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any, TypeVar

from flmq.observe.events import ClientOutcome, Outcome, Phase, RoundClosed

__all__ = ["Stragglers", "with_straggler"]

_WORDS = (Outcome.LATE, Outcome.DUPLICATE)
_PHASES = (Phase.FIT, Phase.EVALUATE)
# Anything with the counts of a round's phases in fields of their names.
_Round = TypeVar("_Round", bound=Any)


def with_straggler(closed: _Round, event: ClientOutcome) -> _Round:
    """Return the round ``closed`` with one more of the outcome in ``event``."""
    counts = getattr(closed, event.phase.value)
    number = getattr(counts, event.outcome.value) + 1
    changed: _Round = replace(
        closed, **{event.phase.value: replace(counts, **{event.outcome.value: number})}
    )
    return changed


class Stragglers:
    """Count late and duplicate replies while their round is not over yet."""

    def __init__(self) -> None:
        """Start with none."""
        self._seen: Counter[tuple[int, Phase, Outcome]] = Counter()

    def hear(self, event: ClientOutcome) -> None:
        """Count a straggler of a round that is not over."""
        self._seen[event.server_round, event.phase, event.outcome] += 1

    def counted(self, closed: RoundClosed) -> RoundClosed:
        """Return ``closed`` with the stragglers that came after its phases had been counted."""
        for phase in _PHASES:
            counts = getattr(closed, phase.value)
            seen = {
                word.value: max(
                    getattr(counts, word.value),
                    self._seen.pop((closed.server_round, phase, word), 0),
                )
                for word in _WORDS
            }
            closed = replace(closed, **{phase.value: replace(counts, **seen)})
        return closed
