"""Runs with a record but no journal, such as those in memory, as rows to show."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from flmq.common.errors import StoredDataError
from flmq.common.phase import Phase
from flmq.journal.records import LateReply, Part, PhaseRow, RoundRow
from flmq.observe.events import RoundCounts
from flmq.observe.record import OutcomeRecord, RoundRecord, RunRecord, load_record
from flmq.round import Outcome, TaskOutcome

__all__ = ["RecordedRun", "recorded_runs", "rows_of"]

_LATER = (Outcome.LATE, Outcome.DUPLICATE)


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A folder with a record but no journal."""

    folder: Path
    record: RunRecord | None
    """The record; None if it cannot be read."""
    problem: str = ""


def recorded_runs(runs_dir: Path, known: set[str]) -> Iterator[RecordedRun]:
    """Yield the runs in ``runs_dir`` with a record, except folders in ``known``."""
    for path in sorted(runs_dir.glob("*/history.json")):
        if path.parent.name in known:
            continue
        try:
            yield RecordedRun(path.parent, load_record(path))
        except StoredDataError as error:
            yield RecordedRun(path.parent, None, str(error))


def rows_of(record: RunRecord) -> list[RoundRow]:
    """Return the rounds of a record in the form a journal gives them."""
    return [_row(closed) for closed in record.rounds]


def _row(closed: RoundRecord) -> RoundRow:
    asked = [
        (phase, counts)
        for phase, counts in ((Phase.FIT, closed.fit), (Phase.EVALUATE, closed.evaluate))
        if counts.asked
    ]
    # A record has a round's bytes, and not each phase's: the first has them all, for their sum.
    phases = tuple(
        _phase(closed, phase, counts, first=place == 0)
        for place, (phase, counts) in enumerate(asked)
    )
    summary = {
        "note": closed.note,
        "changed": closed.changed,
        "model": closed.digest,
        "fit_metrics": closed.fit_metrics,
        "evaluate_loss": closed.evaluate_loss,
        "evaluate_metrics": closed.evaluate_metrics,
        "buffer": [tuple(each.values()) for each in closed.buffer],
    }
    metrics = dict(closed.metrics)
    return RoundRow(
        closed.server_round, phases, True, closed.loss, metrics, closed.seconds, summary
    )


def _phase(closed: RoundRecord, phase: Phase, counts: RoundCounts, *, first: bool) -> PhaseRow:
    said = [
        (TaskOutcome(each.client_id, Outcome(each.word), each.reason), _part(each))
        for each in closed.outcomes
        if each.phase == phase.value
    ]
    in_time = [(outcome, part) for outcome, part in said if outcome.outcome not in _LATER]
    return PhaseRow(
        phase,
        0,
        counts.asked,
        0,
        False,
        closed.closed.get(phase.value, ""),
        tuple(outcome for outcome, _ in in_time),
        closed.seconds,
        closed.bytes_down if first else 0,
        closed.bytes_up if first else 0,
        tuple(
            LateReply(outcome.client_id, outcome.outcome, 0.0, 1, outcome.reason, part=part)
            for outcome, part in said
            if outcome.outcome in _LATER
        ),
        counts.carried,
        {
            each: count
            for each in Outcome
            if each not in _LATER and (count := getattr(counts, each.value))
        },
        parts=tuple(part for _, part in in_time),
    )


def _part(each: OutcomeRecord) -> Part:
    return Part(
        each.client_id,
        Outcome(each.word),
        each.reason,
        each.detail,
        each.seconds,
        each.num_examples,
        each.bytes,
        each.metrics,
        times=each.times,
    )
