"""The rounds of a journal as a run's record has them, with every client's part."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace

from flmq.journal.parts import Part
from flmq.journal.reader import JournalReader
from flmq.journal.records import LateReply, PhaseRow, RoundRow
from flmq.observe.past_rounds import closed_event
from flmq.observe.record import OutcomeRecord, RoundRecord
from flmq.round import TaskOutcome

__all__ = ["completed", "journalled_rounds"]

_AT_ONCE = 50
"""Rounds that are read at once."""


def journalled_rounds(
    journal: JournalReader, *, since: int = 1, at_once: int = _AT_ONCE
) -> Iterator[RoundRecord]:
    """Yield the rounds that are over from ``since`` on, with every client's part in each.

    At most ``at_once`` are in memory. Of a phase that flmq closed before it kept clients' parts,
    there are outcomes and reasons alone.

    Raises:
        JournalDamaged: as it comes to the damage.
    """
    last = journal.rounds_done
    for first in range(since, last + 1, at_once):
        until = min(first + at_once - 1, last)
        for row in journal.rounds(first, until, parts=True):
            if row.done and row.server_round > 0:
                yield _record(row)


def completed(journalled: RoundRecord, kept: RoundRecord | None) -> RoundRecord:
    """Return a round as its journal has it, with what only the record ``kept`` of it knows."""
    if kept is None:
        return journalled
    # An older flmq's journal has no parts, but its record may have what replies said.
    untold = all(each.seconds is None for each in journalled.outcomes)
    outcomes = kept.outcomes if untold and kept.outcomes else journalled.outcomes
    return replace(
        journalled,
        outcomes=outcomes,
        outcomes_left_out=kept.outcomes_left_out if outcomes is kept.outcomes else 0,
        incomplete_uploads=kept.incomplete_uploads,
        stray_chunks=kept.stray_chunks,
        digest=journalled.digest or kept.digest,
    )


def _record(row: RoundRow) -> RoundRecord:
    closed = closed_event(row, 0)
    return RoundRecord(
        row.server_round,
        closed.fit,
        closed.evaluate,
        closed.loss,
        dict(closed.metrics),
        closed.seconds,
        closed.bytes_down,
        closed.bytes_up,
        closed.note,
        {phase.phase.value: phase.reason for phase in row.phases if not phase.open},
        tuple(each for phase in row.phases for each in _outcomes(phase)),
        fit_metrics=dict(closed.fit_metrics),
        evaluate_loss=closed.evaluate_loss,
        evaluate_metrics=dict(closed.evaluate_metrics),
        changed=closed.changed,
        buffer=tuple(map(asdict, closed.buffer)),
        digest=closed.digest,
    )


def _outcomes(phase: PhaseRow) -> Iterator[OutcomeRecord]:
    for outcome, part in zip(phase.outcomes, phase.known_parts(), strict=True):
        yield _outcome(phase, outcome, part)
    for late in phase.late:
        yield replace(_outcome(phase, _late(late), late.part), count=late.times)


def _late(late: LateReply) -> TaskOutcome:
    told = f"{late.seconds:.1f} s after the phase had closed" if late.seconds else ""
    return TaskOutcome(late.client_id, late.outcome, late.note or told)


def _outcome(phase: PhaseRow, outcome: TaskOutcome, part: Part | None) -> OutcomeRecord:
    name, word = phase.phase.value, outcome.outcome.value
    if part is None:
        return OutcomeRecord(name, outcome.client_id, word, outcome.reason, None, "")
    return OutcomeRecord(
        name,
        outcome.client_id,
        word,
        outcome.reason,
        part.seconds,
        part.detail,
        part.num_examples,
        part.bytes,
        part.metrics,
        part.times,
        part.metrics_left_out,
    )
