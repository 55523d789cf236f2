"""What is told to any tracker of a run, and what becomes of it if the tracker fails."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields

from flmq.common.cleaning import one_line
from flmq.common.failure_text import named_error
from flmq.common.logger import logger
from flmq.common.typing import Scalar
from flmq.observe.events import (
    ClientOutcome,
    Outcome,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
)
from flmq.observe.measures import final_measures, measures_of, number

__all__ = ["TrackedRound", "Tracker", "figures_of"]

_MOST_ROUNDS = 10_000
"""Rounds that wait for a tracker that does not answer."""
_MOST_FAILURES = 20
"""Failures that are told of a round, by name."""
_LOST = (Outcome.FAILED, Outcome.REJECTED, Outcome.SILENT, Outcome.UNROUTABLE)


@dataclass(frozen=True, slots=True)
class TrackedRound:
    """A round that is over, as trackers show it."""

    step: int
    """Its number."""
    figures: Mapping[str, float]
    """All numbers, by name; a group and a name, as in "clients/failed", where it is no metric."""
    failures: tuple[str, ...] = ()
    """A line for each client that did not contribute, up to some."""


class Tracker(ABC):
    """An observer that tells a tool what happens; it never holds up or ends a run.

    Observers are called on threads of their own. What the tool does not take waits for the next
    round; one line of the log says so, and one at the end what is missing.
    """

    name = "the tracker"

    def __init__(self, config: Mapping[str, Scalar] | None = None) -> None:
        """Tell ``config`` as hyperparameters, with strategy and rounds."""
        self._config = dict(config or {})
        self._waiting: deque[TrackedRound] = deque()
        self._started: RunStarted | None = None
        self._begun = False
        self._failing = False
        self._left_out = 0
        self._failures: dict[int, list[str]] = {}

    @abstractmethod
    def begin(self, started: RunStarted, config: Mapping[str, Scalar]) -> int:
        """Begin the run, or go on with it; return the last round that the tool has already."""

    @abstractmethod
    def tell(self, closed: TrackedRound) -> None:
        """Tell a round."""

    @abstractmethod
    def end(self, ended: RunEnded, final: Mapping[str, float]) -> None:
        """Tell how the run ended, and close what is open."""

    def __call__(self, event: RunEvent) -> None:
        """Process ``event``; never raises what the tool does."""
        match event:
            case RunStarted():
                self._start(event)
            case ClientOutcome() if event.outcome in _LOST:
                self._fail(event)
            case RoundClosed():
                self._add(event)
                self._flush()
            case RunEnded():
                self._end(event)

    def _start(self, event: RunStarted) -> None:
        self._started = event
        for closed in event.earlier:
            self._add(closed)
        self._flush()

    def _fail(self, event: ClientOutcome) -> None:
        lines = self._failures.setdefault(event.server_round, [])
        if len(lines) < _MOST_FAILURES:
            what = f"{event.client_id} {event.outcome.value} in {event.phase.value}"
            lines.append(one_line(f"{what}: {event.reason}" if event.reason else what))

    def _add(self, closed: RoundClosed) -> None:
        failures = tuple(self._failures.pop(closed.server_round, ()))
        self._waiting.append(TrackedRound(closed.server_round, figures_of(closed), failures))
        if len(self._waiting) > _MOST_ROUNDS:
            self._waiting.popleft()
            self._left_out += 1

    def _flush(self) -> bool:
        """Tell what waits; return whether nothing does any more."""
        try:
            self._tell_all()
        except Exception as error:
            if not self._failing:
                said = "goes on without it, and tries again after each round"
                logger.warning(
                    "%s cannot be told: %s; the run %s", self.name, named_error(error), said
                )
            self._failing = True
            return False
        if self._failing:
            logger.warning("%s is told again, with all that waited", self.name)
        self._failing = False
        return True

    def _tell_all(self) -> None:
        assert self._started is not None
        if not self._begun:
            known = self.begin(self._started, self._hyperparameters(self._started))
            self._begun = True
            while self._waiting and self._waiting[0].step <= known:
                self._waiting.popleft()
        while self._waiting:
            self.tell(self._waiting[0])
            self._waiting.popleft()

    def _end(self, event: RunEnded) -> None:
        if self._started is None:
            return
        told = self._flush()
        if told:
            try:
                final = {
                    k: n for k, v in final_measures(event).items() if (n := number(v)) is not None
                }
                self.end(event, final)
            except Exception as error:
                logger.warning("%s was not told the end: %s", self.name, named_error(error))
        missing = len(self._waiting) + self._left_out
        if missing:
            logger.warning("%s lacks %d rounds of this run", self.name, missing)

    def _hyperparameters(self, started: RunStarted) -> dict[str, Scalar]:
        return {**self._config, "strategy": started.strategy, "num_rounds": started.num_rounds}


def figures_of(closed: RoundClosed) -> dict[str, float]:
    """Return the numbers of a round: measurements by name, counts, seconds and bytes in groups."""
    found = {
        name: figure
        for name, value in measures_of(closed).items()
        if (figure := number(value)) is not None
    }
    for group, counts in (("clients", closed.fit), ("evaluating", closed.evaluate)):
        if counts.asked:
            for each in fields(RoundCounts):
                found[f"{group}/{each.name}"] = float(getattr(counts, each.name))
    found["round/seconds"] = closed.seconds
    found["round/bytes_down"] = float(closed.bytes_down)
    found["round/bytes_up"] = float(closed.bytes_up)
    return found
