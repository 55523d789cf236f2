"""Log a run: a line per round, a warning for each client that did not contribute, a summary."""

from __future__ import annotations

import logging
from collections import Counter

from flmq.common.cleaning import one_line
from flmq.common.logger import about, logger
from flmq.common.phase import Phase
from flmq.observe.events import (
    ClientOutcome,
    Outcome,
    RoundClosed,
    RoundCounts,
    RunEnded,
    RunEvent,
    RunStarted,
)

__all__ = ["RunLog"]

_FIRST = 10
"""Number of clients of a phase that are named one by one; the others are counted."""
_MOST_METRICS = 12
_QUIET = (Outcome.ACCEPTED, Outcome.DUPLICATE)


class RunLog:
    """An observer that writes to flmq's log, whatever other observers there are."""

    def __init__(self, first: int = _FIRST) -> None:
        """Name the ``first`` clients of each phase and outcome; only count the others."""
        self._first = first
        self._started: RunStarted | None = None
        self._said: Counter[tuple[int, Phase, Outcome]] = Counter()
        self._rounds = self._changed = 0
        self._fit = self._evaluate = RoundCounts()
        """Of all rounds together."""

    def __call__(self, event: RunEvent) -> None:
        """Log what is worth logging of ``event``."""
        match event:
            case RunStarted():
                self._started = event
                for closed in event.earlier:
                    self._add(closed)
            case ClientOutcome() if event.outcome not in _QUIET:
                self._outcome(event)
            case RoundClosed():
                self._others(event.server_round)
                self._add(event)
                logger.info(_round_line(event), extra=self._about(event))
            case RunEnded():
                self._others(None)
                self._end(event)

    def _add(self, closed: RoundClosed) -> None:
        self._rounds += 1
        self._changed += closed.changed
        self._fit += closed.fit
        self._evaluate += closed.evaluate

    def _outcome(self, event: ClientOutcome) -> None:
        key = (event.server_round, event.phase, event.outcome)
        self._said[key] += 1
        if self._said[key] <= self._first:
            reason = f": {one_line(event.reason)}" if event.reason else ""
            where = f"round {event.server_round}, {event.phase.value}"
            logger.warning(
                "%s: client %s %s%s",
                where,
                event.client_id,
                _said(event.outcome),
                reason,
                extra=self._about(event),
            )

    def _others(self, before: int | None) -> None:
        """Log how many more there were in rounds up to ``before`` (None: in all)."""
        for server_round, phase, word in list(self._said):
            if before is not None and server_round > before:
                continue
            more = self._said.pop((server_round, phase, word)) - self._first
            if more > 0:
                where = f"round {server_round}, {phase.value}"
                logger.warning(
                    "%s: %d more clients %s",
                    where,
                    more,
                    _said(word),
                    extra=self._about(server_round=server_round, phase=phase),
                )

    def _about(self, event: RunEvent | None = None, **known: object) -> dict[str, object]:
        """What a line is about: of our job and run."""
        started = self._started
        job, run = (None, None) if started is None else (started.job, started.run)
        return about(event, job=job, run=run, **known)

    def _end(self, event: RunEnded) -> None:
        total = self._started.num_rounds if self._started else event.rounds
        if event.stopped:
            how = f"stopped after round {event.rounds} of {total}"
        elif event.error is not None:
            how = f"failed after round {event.rounds} of {total}: {one_line(event.error)}"
        elif event.unchanged:
            how = f"over, and no round changed the model; the last: {one_line(event.unchanged)}"
        elif event.stopped_early:
            how = f"stopped early: {one_line(event.stopped_early)}"
        else:
            how = "done"
        parts = [
            f"job {event.job}: {how}",
            f"{self._rounds} rounds in {event.seconds:.1f} s",
            f"{self._changed} of them changed the model",
            *([_counts("fit", self._fit)] if self._fit.asked else []),
            *([_counts("evaluate", self._evaluate)] if self._evaluate.asked else []),
        ]
        if self._started is not None and self._started.folder:
            parts.append(f"files in {self._started.folder}")
        unchanged = self._rounds > 0 and self._changed == 0
        failed = event.error is not None and not event.stopped
        level = logging.WARNING if unchanged or failed else logging.INFO
        logger.log(level, "; ".join(parts), extra=self._about(event))


def _round_line(event: RoundClosed) -> str:
    measures = [] if event.loss is None else [f"loss {event.loss:.4g}"]
    for name, value in list(event.metrics.items())[:_MOST_METRICS]:
        shown = f"{value:.4g}" if isinstance(value, float) else one_line(str(value), 40)
        measures.append(f"{one_line(name, 40)} {shown}")
    parts = [
        f"round {event.server_round}/{event.num_rounds}: {_counts('fit', event.fit)}",
        *([_counts("evaluate", event.evaluate)] if event.evaluate.asked else []),
        *([", ".join(measures)] if measures else []),
        *([] if event.changed else ["the model stays as it was"]),
        f"{event.seconds:.1f} s, {_mb(event.bytes_down)} down, {_mb(event.bytes_up)} up",
    ]
    return "; ".join(parts)


def _mb(count: int) -> str:
    return f"{count / 1e6:.2f} MB"


def _counts(phase: str, counts: RoundCounts) -> str:
    """Return text such as ``fit 2 of 3 answered, 1 failed``, with every outcome that occurred."""
    return ", ".join([f"{phase} {counts.accepted} of {counts.asked} answered", *_others_of(counts)])


def _others_of(counts: RoundCounts) -> list[str]:
    words = ("failed", "rejected", "silent", "unroutable", "late", "duplicate", "carried")
    return [f"{getattr(counts, word)} {word}" for word in words if getattr(counts, word)]


def _said(word: Outcome) -> str:
    """Return how an outcome is described in the log."""
    return {
        Outcome.FAILED: "failed",
        Outcome.REJECTED: "was rejected",
        Outcome.SILENT: "did not answer",
        Outcome.UNROUTABLE: "has no queue",
        Outcome.LATE: "was late",
    }.get(word, word.value)
