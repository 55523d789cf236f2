"""A run in the log: a line a round, a warning for each client that did not contribute, an end."""

from __future__ import annotations

import logging
from collections import Counter

from flmq.common.cleaning import one_line
from flmq.common.logger import logger
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
"""Clients of a phase that a word is said of one by one; of the others, how many they are."""
_MOST_METRICS = 12
_QUIET = (Outcome.ACCEPTED, Outcome.DUPLICATE)


class RunLog:
    """An observer that writes flmq's log, whoever else observes: `start_server` has no view."""

    def __init__(self, first: int = _FIRST) -> None:
        """Name the ``first`` clients of each phase and word."""
        self._first = first
        self._started: RunStarted | None = None
        self._said: Counter[tuple[int, Phase, Outcome]] = Counter()
        self._rounds: list[tuple[bool, RoundCounts, RoundCounts]] = []

    def __call__(self, event: RunEvent) -> None:
        """Write what ``event`` gives to write, if anything."""
        match event:
            case RunStarted():
                self._started = event
                self._rounds = [(each.changed, each.fit, each.evaluate) for each in event.earlier]
            case ClientOutcome() if event.outcome not in _QUIET:
                self._outcome(event)
            case RoundClosed():
                self._others(event.server_round)
                self._rounds.append((event.changed, event.fit, event.evaluate))
                logger.info(_round_line(event))
            case RunEnded():
                self._others(None)
                self._end(event)

    def _outcome(self, event: ClientOutcome) -> None:
        key = (event.server_round, event.phase, event.outcome)
        self._said[key] += 1
        if self._said[key] <= self._first:
            reason = f": {one_line(event.reason)}" if event.reason else ""
            where = f"round {event.server_round}, {event.phase.value}"
            logger.warning(
                "%s: client %s %s%s", where, event.client_id, _said(event.outcome), reason
            )

    def _others(self, before: int | None) -> None:
        """How many more there were, of rounds up to ``before``; None: of all."""
        for server_round, phase, word in list(self._said):
            if before is not None and server_round > before:
                continue
            more = self._said.pop((server_round, phase, word)) - self._first
            if more > 0:
                where = f"round {server_round}, {phase.value}"
                logger.warning("%s: %d more clients %s", where, more, _said(word))

    def _end(self, event: RunEnded) -> None:
        total = self._started.num_rounds if self._started else event.rounds
        changed = sum(did for did, _, _ in self._rounds)
        if event.stopped:
            how = f"stopped after round {event.rounds} of {total}"
        elif event.error is not None:
            how = f"failed after round {event.rounds} of {total}: {one_line(event.error)}"
        elif event.unchanged:
            how = f"over, and no round changed the model; the last: {one_line(event.unchanged)}"
        else:
            how = "done"
        parts = [
            f"job {event.job}: {how}",
            f"{len(self._rounds)} rounds in {event.seconds:.1f} s",
            f"{changed} of them changed the model",
            *_tally("fit", [fit for _, fit, _ in self._rounds]),
            *_tally("evaluate", [evaluate for _, _, evaluate in self._rounds]),
        ]
        if self._started is not None and self._started.folder:
            parts.append(f"files in {self._started.folder}")
        unchanged = bool(self._rounds) and not changed
        failed = event.error is not None and not event.stopped
        logger.log(logging.WARNING if unchanged or failed else logging.INFO, "; ".join(parts))


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
    """``fit 2 of 3 answered, 1 failed``: every word that happened."""
    return ", ".join([f"{phase} {counts.accepted} of {counts.asked} answered", *_others_of(counts)])


def _tally(phase: str, counts: list[RoundCounts]) -> list[str]:
    """The same of all rounds; nothing where nobody was asked."""
    total: Counter[str] = Counter()
    for each in counts:
        for name in RoundCounts.__dataclass_fields__:
            total[name] += getattr(each, name)
    return [_counts(phase, RoundCounts(**total))] if total["asked"] else []


def _others_of(counts: RoundCounts) -> list[str]:
    words = ("failed", "rejected", "silent", "unroutable", "late", "duplicate", "carried")
    return [f"{getattr(counts, word)} {word}" for word in words if getattr(counts, word)]


def _said(word: Outcome) -> str:
    """What a word is, said of a client."""
    return {
        Outcome.FAILED: "failed",
        Outcome.REJECTED: "was rejected",
        Outcome.SILENT: "did not answer",
        Outcome.UNROUTABLE: "has no queue",
        Outcome.LATE: "was late",
    }.get(word, word.value)
