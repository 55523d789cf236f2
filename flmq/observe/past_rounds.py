"""The rounds of earlier servers, as events: for views and records of a run that goes on."""

from __future__ import annotations

from collections import Counter

from flmq.common.phase import Phase
from flmq.journal import Journal
from flmq.journal.records import PhaseRow, RoundRow
from flmq.observe.events import RoundClosed, RoundCounts
from flmq.round import Outcome

__all__ = ["past_rounds"]


def past_rounds(journal: Journal, num_rounds: int) -> tuple[RoundClosed, ...]:
    """Every round that the journal has closed, without the initial model's round 0."""
    return tuple(
        _closed(row, num_rounds) for row in journal.rounds() if row.done and row.server_round > 0
    )


def _closed(row: RoundRow, num_rounds: int) -> RoundClosed:
    phases = {phase.phase: phase for phase in row.phases}
    return RoundClosed(
        server_round=row.server_round,
        num_rounds=num_rounds,
        fit=_counts(phases.get(Phase.FIT)),
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
    )


def _counts(phase: PhaseRow | None) -> RoundCounts:
    if phase is None:
        return RoundCounts()
    words = Counter(outcome.outcome for outcome in phase.outcomes)
    for late in phase.late:
        words[late.outcome] += late.times
    return RoundCounts(
        asked=phase.asked,
        accepted=words[Outcome.ACCEPTED],
        failed=words[Outcome.FAILED],
        rejected=words[Outcome.REJECTED],
        silent=words[Outcome.SILENT],
        unroutable=words[Outcome.UNROUTABLE],
        late=words[Outcome.LATE],
        duplicate=words[Outcome.DUPLICATE],
        carried=phase.carried,
    )
