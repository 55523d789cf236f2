"""Past rounds as events, read from the journal: for observers that did not see them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from flmq.common.phase import Phase
from flmq.journal import Journal, open_to_read
from flmq.journal.records import PhaseRow, RoundRow
from flmq.observe.events import (
    BufferedUpdate,
    ClientOutcome,
    PhaseClosed,
    PhaseOpened,
    RoundClosed,
    RoundCounts,
    RunEvent,
)

__all__ = ["PastRounds", "buffer_of", "closed_event", "past_rounds"]

_AT_ONCE = 32
"""Rounds that are read ahead."""


def past_rounds(journal: Journal, num_rounds: int) -> tuple[RoundClosed, ...]:
    """Return every round that the journal has closed, without the initial model's round 0."""
    return tuple(
        closed_event(row, num_rounds)
        for row in journal.rounds(1, outcomes=False)
        if row.done and row.server_round > 0
    )


class PastRounds:
    """The details of past rounds, for observers that did not get them at the time."""

    def __init__(self, folder: Callable[[], str]) -> None:
        """Read the journal in ``folder()``; empty if the run has none."""
        self._folder = folder
        self._rows: dict[int, RoundRow] = {}
        """Read ahead but not used yet: many rounds are read at once."""

    @property
    def is_known(self) -> bool:
        """Return whether there is a journal."""
        return bool(self._folder())

    def details(self, closed: RoundClosed) -> list[RunEvent]:
        """Return the phases of a round and what each client did, without late replies.

        Raises:
            StoredDataError: the journal is damaged.
        """
        number = closed.server_round
        if number not in self._rows:
            journal = open_to_read(Path(self._folder()))
            try:
                rows = journal.rounds(number, number + _AT_ONCE - 1, parts=True)
            finally:
                journal.close()
            self._rows = {row.server_round: row for row in rows if row.done}
        row = self._rows.get(number)
        self._rows = {at: each for at, each in self._rows.items() if at > number}
        return [] if row is None else list(_details(row))


def _details(row: RoundRow) -> Iterator[RunEvent]:
    for phase in row.phases:
        asked = tuple(sorted(outcome.client_id for outcome in phase.outcomes))
        yield PhaseOpened(row.server_round, phase.phase, asked, None)
        for each in phase.known_parts():
            assert each.outcome is not None, "it is of an outcome"
            yield ClientOutcome(
                row.server_round,
                phase.phase,
                each.ask,
                each.outcome,
                each.reason,
                each.seconds,
                each.num_examples,
                each.bytes,
                each.detail,
                each.metrics,
                times=each.times,
            )
        yield PhaseClosed(
            row.server_round,
            phase.phase,
            _counts(phase),
            phase.seconds,
            phase.bytes_down,
            phase.bytes_up,
            phase.reason,
        )


def closed_event(row: RoundRow, num_rounds: int) -> RoundClosed:
    """Return how a round closed, as the journal has it."""
    phases = {phase.phase: phase for phase in row.phases}
    return RoundClosed(
        server_round=row.server_round,
        num_rounds=num_rounds,
        fit=_of_step(row) or _counts(phases.get(Phase.FIT)),
        evaluate=_counts(phases.get(Phase.EVALUATE)),
        loss=row.loss,
        metrics=row.metrics,
        seconds=row.seconds or 0.0,
        bytes_down=sum(phase.bytes_down for phase in row.phases),
        bytes_up=sum(phase.bytes_up for phase in row.phases),
        note=str(row.summary.get("note", "")),
        fit_metrics=row.summary.get("fit_metrics") or {},
        evaluate_loss=row.summary.get("evaluate_loss"),
        evaluate_metrics=row.summary.get("evaluate_metrics") or {},
        changed=bool(row.summary.get("changed", True)),
        buffer=buffer_of(row),
        digest=str(row.summary.get("model", "")),
    )


def buffer_of(row: RoundRow) -> tuple[BufferedUpdate, ...]:
    """Return what a step of a run without rounds was made of; empty in one with rounds."""
    return tuple(BufferedUpdate(*each) for each in row.summary.get("buffer", ()))


def _of_step(row: RoundRow) -> RoundCounts | None:
    """Return the asks of a step of a run without rounds, whenever they were opened."""
    counts = row.summary.get("fit")
    return None if counts is None else RoundCounts(**counts)


def _counts(phase: PhaseRow | None) -> RoundCounts:
    if phase is None:
        return RoundCounts()
    outcomes = Counter(phase.counts)
    for late in phase.late:
        outcomes[late.outcome] += late.times
    return RoundCounts.of(outcomes, asked=phase.asked, carried=phase.carried)
